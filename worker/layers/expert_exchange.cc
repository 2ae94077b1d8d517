#include "worker/layers/expert_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "kernels/expert_rows.h"

namespace essor::worker {
namespace {

constexpr uint64_t kFloatBytes = sizeof(float);
constexpr uint64_t kBFloat16Bytes = 2;

uint64_t Sum(const std::vector<uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

std::span<std::byte> BytesAt(float* data, uint64_t bytes) {
  return {reinterpret_cast<std::byte*>(data), bytes};
}

}  // namespace

ExpertExchangeScratch ExpertExchangeScratch::Take(Arena& arena,
                                                  const model::ExpertExchangeSizes& sizes,
                                                  uint32_t hidden_size) {
  ExpertExchangeScratch scratch{.rows_max = sizes.rows};
  for (float*& rows : scratch.rows) rows = arena.Take<float>(sizes.rows * hidden_size);
  scratch.expert_ids = arena.Take<uint32_t>(sizes.choices);
  scratch.expert_weights = arena.Take<float>(sizes.choices);
  return scratch;
}

RowPart PartOfRows(uint32_t num_rows, uint32_t num_ranks, uint32_t index) {
  const uint32_t size = (num_rows + num_ranks - 1) / num_ranks;
  return {std::min(index * size, num_rows), std::min((index + 1) * size, num_rows)};
}

ExpertExchange::ExpertExchange(Inputs inputs)
    : inputs_(std::move(inputs)),
      bfloat16_(kernels::TakesBFloat16(inputs_.experts[0].gate.format) && !inputs_.weigh_input),
      num_rows_(inputs_.holders.num_ranks) {
  choices_.ids = inputs_.scratch.expert_ids;
  choices_.top_k = inputs_.top_k;
  choices_.num_rows = num_rows_;
}

RowPart ExpertExchange::OwnPart(std::span<const uint32_t> group_rows) const {
  const uint32_t group = inputs_.rank_in_stage / inputs_.group_size;
  return PartOfRows(group_rows[group], inputs_.group_size,
                    inputs_.rank_in_stage % inputs_.group_size);
}

absl::Status ExpertExchange::Run(std::span<const uint32_t> group_rows, const float* x,
                                 const uint32_t* expert_ids, const float* expert_weights,
                                 float* y) {
  for (uint32_t rank = 0; rank < inputs_.holders.num_ranks; ++rank) {
    num_rows_[rank] = PartOfRows(group_rows[rank / inputs_.group_size], inputs_.group_size,
                                 rank % inputs_.group_size)
                          .size();
  }
  choices_.rows_max = *std::max_element(num_rows_.begin(), num_rows_.end());
  ESSOR_RETURN_IF_ERROR(GatherChoices(expert_ids, expert_weights));
  for (const DispatchRound& round :
       PlanRounds(inputs_.holders, choices_, inputs_.scratch.rows_max)) {
    PlanDispatch(inputs_.holders, choices_, round, inputs_.rank_in_stage, &dispatch_);
    ESSOR_RETURN_IF_ERROR(RunRound(round, x, expert_weights, y));
  }
  return absl::OkStatus();
}

// Equal parts: ranks with fewer rows send some choices that nobody looks at.
absl::Status ExpertExchange::GatherChoices(const uint32_t* expert_ids,
                                           const float* expert_weights) {
  const size_t count = size_t{choices_.rows_max} * inputs_.top_k;
  const size_t all = count * inputs_.holders.num_ranks;
  ESSOR_RETURN_IF_ERROR(
      inputs_.stage->AllGather(std::as_bytes(std::span(expert_ids, count)),
                               std::as_writable_bytes(std::span(inputs_.scratch.expert_ids, all))));
  ESSOR_RETURN_IF_ERROR(CheckChoices());
  if (!inputs_.weigh_input) return absl::OkStatus();
  return inputs_.stage->AllGather(
      std::as_bytes(std::span(expert_weights, count)),
      std::as_writable_bytes(std::span(inputs_.scratch.expert_weights, all)));
}

absl::Status ExpertExchange::CheckChoices() const {
  const size_t num_experts = inputs_.holders.part_of_expert.size();
  for (uint32_t rank = 0; rank < inputs_.holders.num_ranks; ++rank) {
    const uint32_t* ids = choices_.ids + size_t{rank} * choices_.rows_max * choices_.top_k;
    for (size_t i = 0; i < size_t{num_rows_[rank]} * choices_.top_k; ++i) {
      if (ids[i] < num_experts) continue;
      return absl::InternalError(absl::StrFormat("member %d of the stage chose expert %d of %d",
                                                 rank, ids[i], num_experts));
    }
  }
  return absl::OkStatus();
}

absl::Status ExpertExchange::RunRound(DispatchRound round, const float* x,
                                      const float* expert_weights, float* y) {
  const size_t first = size_t{round.begin} * inputs_.hidden_size;
  ESSOR_ASSIGN_OR_RETURN(const float* rows, SendRows(x + first));
  float* const outputs = OtherThan(rows);
  Compute(rows, outputs);
  float* const returned = OtherThan(outputs);
  ESSOR_RETURN_IF_ERROR(Exchange(outputs, dispatch_.computed_per_rank, returned,
                                 dispatch_.returned_per_rank, kFloatBytes));
  const uint32_t end = std::min(round.end, num_rows_[inputs_.rank_in_stage]);
  if (end <= round.begin) return absl::OkStatus();
  kernels::CombineExperts(
      {.rows = returned,
       .row_ids = dispatch_.returned_rows.data(),
       .expert_weights =
           inputs_.weigh_input ? nullptr : expert_weights + size_t{round.begin} * inputs_.top_k,
       .num_rows = end - round.begin,
       .top_k = inputs_.top_k,
       .num_slices = inputs_.holders.num_slices,
       .width = inputs_.hidden_size,
       .y = y + first},
      *inputs_.stream);
  return absl::OkStatus();
}

absl::StatusOr<const float*> ExpertExchange::SendRows(const float* x) {
  float* const sent = inputs_.scratch.rows[0];
  float* const received = inputs_.scratch.rows[1];
  kernels::GatherRows({.x = x,
                       .row_ids = dispatch_.sent_rows.data(),
                       .num_rows = static_cast<uint32_t>(dispatch_.sent_rows.size()),
                       .width = inputs_.hidden_size,
                       .bfloat16 = bfloat16_,
                       .y = reinterpret_cast<std::byte*>(sent)},
                      *inputs_.stream);
  ESSOR_RETURN_IF_ERROR(Exchange(sent, dispatch_.sent_per_rank, received,
                                 dispatch_.received_per_rank,
                                 bfloat16_ ? kBFloat16Bytes : kFloatBytes));
  if (!bfloat16_) return received;
  kernels::WidenBFloat16(reinterpret_cast<const std::byte*>(received), sent,
                         dispatch_.received_rows.size() * inputs_.hidden_size, *inputs_.stream);
  return sent;
}

void ExpertExchange::Compute(const float* rows, float* outputs) {
  if (dispatch_.received_rows.empty()) return;
  received_ids_.clear();
  received_weights_.clear();
  for (const uint32_t row : dispatch_.received_rows) {
    const size_t first = size_t{row} * inputs_.top_k;
    const uint32_t* ids = inputs_.scratch.expert_ids + first;
    received_ids_.insert(received_ids_.end(), ids, ids + inputs_.top_k);
    if (!inputs_.weigh_input) continue;
    const float* weights = inputs_.scratch.expert_weights + first;
    received_weights_.insert(received_weights_.end(), weights, weights + inputs_.top_k);
  }
  kernels::MoeExpertRows({.x = rows,
                          .num_rows = static_cast<uint32_t>(dispatch_.received_rows.size()),
                          .top_k = inputs_.top_k,
                          .expert_ids = received_ids_.data(),
                          .expert_weights = received_weights_.data(),
                          .weigh_input = inputs_.weigh_input,
                          .first_expert = inputs_.first_expert,
                          .experts = inputs_.experts,
                          .activation = inputs_.activation,
                          .y = outputs},
                         *inputs_.stream);
}

absl::Status ExpertExchange::Exchange(const float* sent, const std::vector<uint64_t>& send_rows,
                                      float* received, const std::vector<uint64_t>& receive_rows,
                                      uint64_t element_bytes) {
  const auto bytes_of = [&](uint64_t rows) { return rows * inputs_.hidden_size * element_bytes; };
  send_bytes_.resize(send_rows.size());
  receive_bytes_.resize(receive_rows.size());
  std::transform(send_rows.begin(), send_rows.end(), send_bytes_.begin(), bytes_of);
  std::transform(receive_rows.begin(), receive_rows.end(), receive_bytes_.begin(), bytes_of);
  return inputs_.stage->AllToAllV({reinterpret_cast<const std::byte*>(sent), Sum(send_bytes_)},
                                  send_bytes_, BytesAt(received, Sum(receive_bytes_)),
                                  receive_bytes_);
}

float* ExpertExchange::OtherThan(const float* rows) const {
  return rows == inputs_.scratch.rows[0] ? inputs_.scratch.rows[1] : inputs_.scratch.rows[0];
}

}  // namespace essor::worker
