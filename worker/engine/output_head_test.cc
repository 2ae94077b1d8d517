#include "worker/engine/output_head.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/reference/sampling.h"
#include "worker/parallel/local_cluster.h"

namespace essor::worker {
namespace {

constexpr uint32_t kHidden = 64;
constexpr uint32_t kVocabulary = 1500;
constexpr uint32_t kRows = 70;  // more than are computed at once
constexpr absl::Duration kTimeout = absl::Seconds(30);

std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// Rows of every kind, the same on all ranks; adjustments in ids of the whole vocabulary.
struct Request {
  HeadRow row;
  std::vector<kernels::TokenMark> marks;  // [vocabulary], or empty
  std::vector<std::pair<uint32_t, float>> biases;
  std::vector<uint32_t> blocked;
};

std::vector<Request> Requests() {
  std::vector<Request> requests;
  std::mt19937 generator(3);
  for (uint32_t i = 0; i < kRows; ++i) {
    Request request;
    HeadRow& row = request.row;
    row.row = i;
    row.sample = i % 7 != 3;
    row.sampling = {.temperature = i % 5 == 0 ? 0.0f : 0.3f + 0.1f * static_cast<float>(i % 12),
                    .top_p = i % 3 == 0 ? 1.0f : 0.5f + 0.01f * static_cast<float>(i % 50),
                    .top_k = i % 4 == 1 ? static_cast<int32_t>(1 + i * 11 % 400) : 0,
                    .min_p = i % 6 == 2 ? 0.05f : 0.0f,
                    .seed = i,
                    .position = 100 + i,
                    .typical_p = i % 8 == 5 ? 0.7f : 1.0f};
    if (row.sample && i % 2 == 0) row.logprobs = i % 21;
    row.score = i % 9 == 4;
    row.target = generator() % kVocabulary;
    row.score_top = i % 18 == 4 ? 5 : 0;
    row.return_logits = true;
    if (i % 3 == 1) {
      request.marks.assign(kVocabulary, 0);
      for (uint32_t k = 0; k < 300; ++k) request.marks[generator() % kVocabulary] = 1 + k % 5;
      request.biases = {{7, 30.0f}, {1400, -5.0f}};
      request.blocked = {7, 11};
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

// One rank's part of the model and its head.
class RankHead {
 public:
  RankHead(uint32_t rank, const std::vector<model::Range>& slices, Communicator* stage)
      : stream_(kernels::CpuStream::Create({})) {
    spec_.hidden_size = kHidden;
    spec_.vocab_size = kVocabulary;
    layout_.vocab = slices[rank];
    const auto width = static_cast<uint32_t>(layout_.vocab.size());
    const auto whole = RandomFloats(size_t{kVocabulary} * kHidden, 1, 0.35f);
    auto buffer = DeviceBuffer::Allocate(
        kernels::PackedMatrixBytes(kernels::WeightFormat::kF32, width, kHidden), "head");
    weights_.storage = *std::move(buffer);
    kernels::PackF32({whole.data() + layout_.vocab.begin * kHidden, size_t{width} * kHidden},
                     kHidden,
                     {.destination = weights_.storage.data(),
                      .n = width,
                      .k = kHidden,
                      .first_row = 0,
                      .num_rows = width});
    weights_.head = {.n = width, .k = kHidden, .data = weights_.storage.data()};
    weights_.final_norm = norm_.data();
    const OutputHead::Inputs inputs{.spec = &spec_,
                                    .layout = &layout_,
                                    .vocab_slices = slices,
                                    .weights = &weights_,
                                    .stage = stage,
                                    .stream = stream_.get()};
    Arena measure = Arena::Measure();
    OutputHead(inputs, measure);
    auto arena = Arena::Allocate(measure.used_bytes(), "head");
    arena_ = std::make_unique<Arena>(*std::move(arena));
    head_ = std::make_unique<OutputHead>(inputs, *arena_);
  }

  absl::StatusOr<std::vector<HeadResult>> Run(const std::vector<float>& hidden,
                                              const std::vector<Request>& requests) {
    struct Adjustment {
      std::vector<kernels::TokenMark> marks;
      std::vector<uint32_t> marked;
      std::vector<std::pair<uint32_t, float>> biases;
      std::vector<uint32_t> blocked;
    };
    std::vector<Adjustment> adjustments(requests.size());
    std::vector<HeadRow> rows;
    const auto first = static_cast<uint32_t>(layout_.vocab.begin);
    const auto end = static_cast<uint32_t>(layout_.vocab.end);
    for (size_t i = 0; i < requests.size(); ++i) {
      const Request& request = requests[i];
      Adjustment& mine = adjustments[i];
      rows.push_back(request.row);
      if (request.marks.empty()) continue;
      mine.marks.assign(request.marks.begin() + first, request.marks.begin() + end);
      for (uint32_t column = 0; column < mine.marks.size(); ++column) {
        if (mine.marks[column] > 0) mine.marked.push_back(column);
      }
      for (const auto& [id, bias] : request.biases) {
        if (id >= first && id < end) mine.biases.emplace_back(id - first, bias);
      }
      for (uint32_t id : request.blocked) {
        if (id >= first && id < end) mine.blocked.push_back(id - first);
      }
      rows.back().adjustment = {.repetition_penalty = 1.3f,
                                .presence_penalty = 0.4f,
                                .frequency_penalty = 0.2f,
                                .marks = mine.marks,
                                .marked = mine.marked,
                                .biases = mine.biases,
                                .blocked = mine.blocked};
    }
    std::vector<HeadResult> results(rows.size());
    ESSOR_RETURN_IF_ERROR(head_->Run(hidden.data(), rows, results));
    return results;
  }

 private:
  const std::vector<float> norm_ = std::vector<float>(kHidden, 1.0f);
  model::ModelSpec spec_;
  model::RankLayout layout_;
  RankWeights weights_;
  std::unique_ptr<kernels::Stream> stream_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<OutputHead> head_;
};

// What every rank says; all say the same.
std::vector<HeadResult> RunSplit(const std::vector<uint64_t>& cuts,
                                 const std::vector<float>& hidden,
                                 const std::vector<Request>& requests) {
  std::vector<model::Range> slices;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) slices.push_back({cuts[i], cuts[i + 1]});
  LocalCluster cluster(std::vector<PlaneSpec>{{.num_ranks = static_cast<uint32_t>(slices.size())}});
  EXPECT_TRUE(cluster.create_status().ok()) << cluster.create_status();
  std::vector<std::vector<HeadResult>> results(slices.size());
  const absl::Status status = cluster.OnEveryRank([&](uint32_t rank) -> absl::Status {
    ESSOR_ASSIGN_OR_RETURN(
        const auto groups,
        cluster.Connect(1, rank, {{.name = "stage", .ranks = cluster.AllRanks()}},
                        OutputHead::MaxExchangeBytes(slices), kTimeout));
    RankHead head(rank, slices, groups[0].get());
    ESSOR_ASSIGN_OR_RETURN(results[rank], head.Run(hidden, requests));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  for (const auto& others : results) {
    for (size_t i = 0; i < others.size(); ++i) {
      EXPECT_EQ(others[i].token, results[0][i].token);
      EXPECT_EQ(others[i].token_logprob.logprob, results[0][i].token_logprob.logprob);
    }
  }
  return results[0];
}

double LogProbability(const std::vector<float>& logits, TokenId token) {
  double sum = 0;
  const float max = *std::max_element(logits.begin(), logits.end());
  for (float logit : logits) sum += std::exp(double{logit} - max);
  return double{logits[token]} - max - std::log(sum);
}

// The token that a whole row in one place gives.
TokenId TokenOf(const Request& request, std::vector<float> logits) {
  std::vector<uint32_t> marked;
  for (uint32_t id = 0; id < request.marks.size(); ++id) {
    if (request.marks[id] > 0) marked.push_back(id);
  }
  const kernels::RowAdjustment adjustment{.repetition_penalty = 1.3f,
                                          .presence_penalty = 0.4f,
                                          .frequency_penalty = 0.2f,
                                          .marks = request.marks,
                                          .marked = marked,
                                          .biases = request.biases,
                                          .blocked = request.blocked};
  if (!request.marks.empty()) {
    kernels::reference::AdjustLogits(
        {.logits = logits.data(), .width = kVocabulary, .rows = {&adjustment, 1}});
  }
  if (request.row.sampling.Filtered()) {
    return kernels::SampleFiltered(logits, request.row.sampling);
  }
  kernels::Candidate best;
  kernels::reference::LocalBest({.logits = logits.data(),
                                 .num_rows = 1,
                                 .width = kVocabulary,
                                 .first_id = 0,
                                 .sampling = &request.row.sampling,
                                 .best = &best});
  return best.id;
}

void ExpectTop(const std::vector<std::pair<TokenId, float>>& top, const std::vector<float>& logits,
               uint32_t count) {
  std::vector<uint32_t> ids(logits.size());
  for (uint32_t id = 0; id < ids.size(); ++id) ids[id] = id;
  std::stable_sort(ids.begin(), ids.end(),
                   [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  ASSERT_EQ(top.size(), count);
  for (uint32_t i = 0; i < count; ++i) {
    EXPECT_EQ(top[i].first, ids[i]);
    EXPECT_NEAR(top[i].second, LogProbability(logits, ids[i]), 1e-5);
  }
}

class OutputHeadTest : public ::testing::TestWithParam<std::vector<uint64_t>> {};

// Penalties, every filter, greedy and scored rows in one batch: the tokens are those of the whole
// row, the log-probabilities those of the model's own logits.
TEST_P(OutputHeadTest, AnySplitGivesWhatTheWholeRowGives) {
  const auto hidden = RandomFloats(size_t{kRows} * kHidden, 2, 1.0f);
  const std::vector<Request> requests = Requests();
  const std::vector<HeadResult> results = RunSplit(GetParam(), hidden, requests);
  ASSERT_EQ(results.size(), requests.size());
  for (size_t i = 0; i < results.size(); ++i) {
    const HeadRow& row = requests[i].row;
    const HeadResult& result = results[i];
    ASSERT_EQ(result.logits.size(), kVocabulary);
    if (row.sample) {
      EXPECT_EQ(result.token, TokenOf(requests[i], result.logits)) << "row " << i;
    }
    if (row.logprobs.has_value()) {
      EXPECT_NEAR(result.token_logprob.logprob, LogProbability(result.logits, result.token), 1e-5);
      ExpectTop(result.token_logprob.top, result.logits, *row.logprobs);
    }
    if (!row.score) continue;
    EXPECT_NEAR(result.target.logprob, LogProbability(result.logits, row.target), 1e-5);
    ExpectTop(result.target.top, result.logits, row.score_top);
  }
}

// A row's token is the one it gets alone.
TEST_P(OutputHeadTest, RowsDoNotSeeEachOther) {
  const auto hidden = RandomFloats(size_t{kRows} * kHidden, 2, 1.0f);
  const std::vector<Request> requests = Requests();
  const std::vector<HeadResult> together = RunSplit(GetParam(), hidden, requests);
  for (size_t i = 0; i < requests.size(); i += 9) {
    const std::vector<HeadResult> alone = RunSplit(GetParam(), hidden, {requests[i]});
    EXPECT_EQ(alone[0].token, together[i].token);
    EXPECT_EQ(alone[0].token_logprob.logprob, together[i].token_logprob.logprob);
    EXPECT_EQ(alone[0].token_logprob.top, together[i].token_logprob.top);
  }
}

TEST_P(OutputHeadTest, LogitsThatAreNotFiniteGiveNoToken) {
  auto hidden = RandomFloats(size_t{kRows} * kHidden, 2, 1.0f);
  hidden[5] = std::nanf("");  // of row 0
  std::vector<Request> requests(6);
  for (size_t i = 0; i < requests.size(); ++i) {
    HeadRow& row = requests[i].row;
    row.sample = true;
    row.sampling = {.temperature = i == 0 ? 0.0f : 1.0f,
                    .top_p = 1,
                    .top_k = 0,
                    .min_p = 0,
                    .seed = 1,
                    .position = 1};
    if (i == 2) row.sampling.top_k = 5;
    if (i == 3) row.sampling.top_p = 0.5f;
    if (i == 4) row.sampling.top_k = 1000;
    if (i == 5) row.sampling.typical_p = 0.5f;
    row.logprobs = 2;
  }
  for (const HeadResult& result : RunSplit(GetParam(), hidden, requests)) {
    EXPECT_EQ(result.token, kNoToken);
  }
}

INSTANTIATE_TEST_SUITE_P(Splits, OutputHeadTest,
                         ::testing::Values(std::vector<uint64_t>{0, kVocabulary},
                                           std::vector<uint64_t>{0, 640, kVocabulary},
                                           std::vector<uint64_t>{0, 64, 1088, kVocabulary}));

// Most draws are decided by what the ranks tell without asking for more, with the same tokens.
TEST(TokenChooserTest, FewRowsAreNeededWhole) {
  constexpr uint32_t kFew = 40;
  LocalCluster cluster(std::vector<PlaneSpec>{{.num_ranks = 1}});
  const std::vector<model::Range> slices = {{0, kVocabulary}};
  auto groups = cluster.Connect(1, 0, {{.name = "stage", .ranks = {0}}},
                                OutputHead::MaxExchangeBytes(slices), kTimeout);
  ASSERT_TRUE(groups.ok()) << groups.status();
  const auto stream = kernels::CpuStream::Create({});
  const HeadSlice slice{.vocab = slices[0],
                        .vocab_slices = slices,
                        .stage = (*groups)[0].get(),
                        .stream = stream.get()};
  auto arena = Arena::Allocate(1 << 20, "rows");
  ASSERT_TRUE(arena.ok());
  WholeRows whole_rows(&slice, kVocabulary, *arena);
  const auto logits = RandomFloats(size_t{kFew} * kVocabulary, 5, 2.5f);
  std::vector<HeadRow> rows(kFew);
  for (uint32_t i = 0; i < kFew; ++i) {
    rows[i].sample = true;
    rows[i].sampling = {.temperature = 0.5f,
                        .top_p = 0.9f,
                        .top_k = 0,
                        .min_p = 0,
                        .seed = i,
                        .position = 1,
                        .typical_p = i % 2 == 0 ? 1.0f : 0.9f};
  }
  std::vector<std::vector<HeadResult>> results;
  std::vector<uint64_t> num_whole;
  for (uint32_t candidates : {1u, 32u, 256u}) {
    TokenChooser chooser(&slice, &whole_rows, kVocabulary, candidates);
    results.emplace_back(kFew);
    ASSERT_TRUE(chooser.Choose(logits.data(), rows, results.back()).ok());
    num_whole.push_back(chooser.num_whole_rows());
  }
  EXPECT_GT(num_whole[0], kFew / 2);
  EXPECT_LT(num_whole[2], kFew / 10);
  for (uint32_t i = 0; i < kFew; ++i) {
    EXPECT_EQ(results[0][i].token, results[1][i].token);
    EXPECT_EQ(results[0][i].token, results[2][i].token);
  }
}

}  // namespace
}  // namespace essor::worker
