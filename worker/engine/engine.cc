#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/rope_table.h"
#include "model/plan/attention_shape.h"
#include "model/spec/rope_frequencies.h"

namespace essor::worker {
namespace {

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

// Bytes of one layer's cache on a rank, whole cache lines.
uint64_t CacheBytes(const model::ModelSpec& spec, const model::RankLayout& layout, size_t index,
                    const model::ServingLimits& limits, const model::KvCapacity& capacity) {
  const model::KvTokenBytes per_token = model::KvTokenBytesOf(
      spec.layers[layout.layers.begin + index].attention, layout.per_layer[index], limits.kv_type);
  return RoundUp(uint64_t{capacity.num_blocks} * limits.block_tokens * per_token.total(), 64);
}

// Likewise of its states, of all sequences that can run at once.
uint64_t StateBytes(const model::ModelSpec& spec, const model::RankLayout& layout, size_t index,
                    const model::ServingLimits& limits) {
  const uint64_t floats = model::StateFloatsPerSequence(
      spec.layers[layout.layers.begin + index].attention, layout.per_layer[index]);
  return RoundUp(limits.max_sequences * floats * sizeof(float), 64);
}

}  // namespace

std::vector<GroupSpec> GroupsOf(const model::RankLayout& layout, const model::ParallelPlan& plan) {
  std::vector<uint32_t> pipeline;
  for (uint32_t stage = 0; stage < plan.pp; ++stage) {
    pipeline.push_back(stage * plan.RanksPerStage() + layout.rank_in_stage);
  }
  return {{.name = "tp", .ranks = layout.tp_ranks},
          {.name = "stage", .ranks = layout.stage_ranks},
          {.name = "pp", .ranks = std::move(pipeline)}};
}

uint64_t Engine::MaxExchangeBytes(const model::ModelSpec& spec, const model::ServingLimits& limits,
                                  const std::vector<model::Range>& vocab_slices) {
  const uint64_t activations = uint64_t{limits.max_step_tokens} * spec.hidden_size * sizeof(float);
  return std::max(activations, OutputHead::MaxExchangeBytes(vocab_slices));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Inputs inputs) {
  ESSOR_CHECK(inputs.communicators.size() == 3);
  ESSOR_ASSIGN_OR_RETURN(
      DeviceBuffer kv,
      DeviceBuffer::Allocate(KvBytes(*inputs.spec, inputs.layout, inputs.limits, inputs.capacity),
                             "KV blocks"));
  std::unique_ptr<Engine> engine(new Engine(std::move(inputs), Arena::Measure(), std::move(kv)));
  engine->TakeWorkspace(engine->workspace_);
  ESSOR_ASSIGN_OR_RETURN(Arena workspace,
                         Arena::Allocate(engine->workspace_.used_bytes(), "workspaces of a step"));
  engine->workspace_ = std::move(workspace);
  engine->TakeWorkspace(engine->workspace_);
  engine->BuildLayers();
  return engine;
}

Engine::Engine(Inputs inputs, Arena workspace, DeviceBuffer kv)
    : inputs_(std::move(inputs)),
      tp_(inputs_.communicators[0].get()),
      stage_(inputs_.communicators[1].get()),
      pipeline_(inputs_.communicators[2].get()),
      workspace_(std::move(workspace)),
      kv_(std::move(kv)),
      slots_({.num_slots = inputs_.limits.max_sequences,
              .num_blocks = inputs_.capacity.num_blocks,
              .block_tokens = inputs_.limits.block_tokens,
              .max_context_tokens = inputs_.limits.max_context_tokens,
              .max_step_tokens = inputs_.limits.max_step_tokens,
              .vocab_size = inputs_.spec->vocab_size}) {}

Engine::Buffers Engine::TakeBuffers(Arena& arena, const Inputs& inputs) {
  const uint64_t count = uint64_t{inputs.limits.max_step_tokens} * inputs.spec->hidden_size;
  Buffers buffers;
  buffers.residual = arena.Take<float>(count);
  buffers.normed = arena.Take<float>(count);
  buffers.delta = arena.Take<float>(count);
  return buffers;
}

void Engine::TakeWorkspace(Arena& arena) {
  buffers_ = TakeBuffers(arena, inputs_);
  scratch_ = TakeLayerScratch(arena, *inputs_.spec, inputs_.layout, inputs_.limits.max_step_tokens);
  rope_ = TakeRopeTables(arena);
  if (!inputs_.layout.last_stage) return;
  head_ = std::make_unique<OutputHead>(OutputHead::Inputs{.spec = inputs_.spec,
                                                          .layout = &inputs_.layout,
                                                          .vocab_slices = inputs_.vocab_slices,
                                                          .weights = inputs_.weights,
                                                          .stage = stage_,
                                                          .stream = inputs_.stream.get()},
                                       arena);
}

// One table for all layers that rotate alike; filled only when the arena has memory.
std::vector<RopeTable> Engine::TakeRopeTables(Arena& arena) {
  const auto rope_of = [&](uint64_t index) -> const model::RopeSpec& {
    return model::RopeOf(inputs_.spec->layers[inputs_.layout.layers.begin + index].attention);
  };
  std::vector<RopeTable> tables;
  for (uint64_t index = 0; index < inputs_.layout.layers.size(); ++index) {
    const model::RopeSpec& rope = rope_of(index);
    uint64_t same = 0;
    while (same < index && rope_of(same) != rope) ++same;
    if (same < index) {
      tables.push_back(tables[same]);
      continue;
    }
    const uint32_t positions = inputs_.limits.max_context_tokens;
    const uint64_t count = uint64_t{positions} * (rope.rotary_dim / 2);
    float* cos = arena.Take<float>(count);
    float* sin = arena.Take<float>(count);
    if (cos != nullptr && count > 0) {
      const model::RopeFrequencies frequencies = model::FrequenciesOf(rope);
      kernels::FillRopeTable(frequencies.inverse_frequencies, frequencies.attention_factor,
                             positions, cos, sin);
    }
    tables.push_back({.cos = cos, .sin = sin});
  }
  return tables;
}

uint64_t Engine::KvBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                         const model::ServingLimits& limits, const model::KvCapacity& capacity) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    bytes += CacheBytes(spec, layout, i, limits, capacity) + StateBytes(spec, layout, i, limits);
  }
  return bytes;
}

void Engine::BuildLayers() {
  std::byte* next = kv_.data();
  for (uint32_t i = 0; i < inputs_.layout.per_layer.size(); ++i) {
    const uint64_t cache_bytes =
        CacheBytes(*inputs_.spec, inputs_.layout, i, inputs_.limits, inputs_.capacity);
    const uint64_t state_bytes = StateBytes(*inputs_.spec, inputs_.layout, i, inputs_.limits);
    const LayerInputs layer{
        .spec = inputs_.spec,
        .layout = &inputs_.layout,
        .index = i,
        .weights = &inputs_.weights->layers[i],
        .groups = {.tp = tp_, .stage = stage_},
        .scratch = scratch_,
        .rope = rope_[i],
        .cache = {.data = next,
                  .type = inputs_.limits.kv_type,
                  .num_blocks = inputs_.capacity.num_blocks,
                  .block_tokens = inputs_.limits.block_tokens},
        .state = state_bytes == 0 ? nullptr : reinterpret_cast<float*>(next + cache_bytes),
        .state_slots = inputs_.limits.max_sequences,
        .stream = inputs_.stream.get(),
    };
    next += cache_bytes + state_bytes;
    const model::LayerSpec& parts = inputs_.spec->layers[inputs_.layout.layers.begin + i];
    layers_.push_back({.norm = layer.weights->attention_norm,
                       .post_norm = layer.weights->attention_post_norm,
                       .residual = parts.attention_residual,
                       .layer = MakeAttentionLayer(layer)});
    layers_.push_back({.norm = layer.weights->ffn_norm,
                       .post_norm = layer.weights->ffn_post_norm,
                       .residual = parts.ffn_residual,
                       .layer = MakeFfnLayer(layer)});
  }
}

absl::StatusOr<StepOutput> Engine::Run(const StepInput& input) {
  const absl::Time start = inputs_.clock->Now();
  for (Communicator* group : {tp_, stage_, pipeline_}) group->SetDeadline(input.deadline);
  StepOutput output;
  output.step_id = input.step_id;
  ESSOR_RETURN_IF_ERROR(slots_.Apply(input, &rows_));
  const Batch batch = BatchOf();
  if (batch.num_rows > 0) {
    ESSOR_RETURN_IF_ERROR(Begin(batch));
    ESSOR_RETURN_IF_ERROR(RunLayers(batch));
    ESSOR_RETURN_IF_ERROR(Finish(input, &output));
  }
  slots_.Commit(input, rows_);
  output.compute_time = inputs_.clock->Now() - start;
  return output;
}

Batch Engine::BatchOf() const {
  return {.num_rows = static_cast<uint32_t>(rows_.token_ids.size()),
          .token_ids = rows_.token_ids.data(),
          .positions = rows_.positions.data(),
          .sequences = rows_.sequences};
}

absl::Status Engine::Begin(const Batch& batch) {
  const size_t count = size_t{batch.num_rows} * inputs_.spec->hidden_size;
  if (!inputs_.layout.first_stage) {
    return pipeline_->Receive(std::as_writable_bytes(std::span(buffers_.residual, count)),
                              inputs_.layout.stage - 1);
  }
  kernels::Embedding({.table = inputs_.weights->embedding,
                      .first_id = static_cast<uint32_t>(inputs_.layout.vocab.begin),
                      .token_ids = batch.token_ids,
                      .num_rows = batch.num_rows,
                      .y = buffers_.residual},
                     *inputs_.stream);
  return stage_->AllReduceSum({buffers_.residual, count});
}

// What a sub-layer gave is added to the residual together with the next norm, unless its residual
// is scaled.
absl::Status Engine::RunLayers(const Batch& batch) {
  const uint64_t count = uint64_t{batch.num_rows} * inputs_.spec->hidden_size;
  bool delta_pending = false;
  for (const HalfLayer& half : layers_) {
    kernels::RmsNorm({.x = delta_pending ? buffers_.delta : buffers_.residual,
                      .residual = delta_pending ? buffers_.residual : nullptr,
                      .weight = half.norm,
                      .y = buffers_.normed,
                      .num_rows = batch.num_rows,
                      .width = inputs_.spec->hidden_size,
                      .eps = static_cast<float>(inputs_.spec->norm_eps)},
                     *inputs_.stream);
    ESSOR_RETURN_IF_ERROR(half.layer->Forward(batch, buffers_.normed, buffers_.delta));
    if (half.post_norm != nullptr) {
      kernels::RmsNorm({.x = buffers_.delta,
                        .weight = half.post_norm,
                        .y = buffers_.delta,
                        .num_rows = batch.num_rows,
                        .width = inputs_.spec->hidden_size,
                        .eps = static_cast<float>(inputs_.spec->norm_eps)},
                       *inputs_.stream);
    }
    delta_pending = !half.residual.has_value();
    if (delta_pending) continue;
    kernels::WeightedSum({.x = buffers_.normed,
                          .y = buffers_.delta,
                          .z = buffers_.residual,
                          .count = count,
                          .alpha = static_cast<float>(half.residual->alpha),
                          .beta = static_cast<float>(half.residual->beta)},
                         *inputs_.stream);
  }
  if (delta_pending) kernels::Add(buffers_.residual, buffers_.delta, count, *inputs_.stream);
  return absl::OkStatus();
}

absl::Status Engine::Finish(const StepInput& input, StepOutput* output) {
  if (inputs_.layout.last_stage) {
    ESSOR_RETURN_IF_ERROR(RunHead(input, output));
  } else {
    const size_t count = rows_.token_ids.size() * inputs_.spec->hidden_size;
    ESSOR_RETURN_IF_ERROR(pipeline_->Send(
        std::as_bytes(std::span<const float>(buffers_.residual, count)), inputs_.layout.stage + 1));
  }
  return ExchangeSampled(input, *output);
}

std::vector<HeadRow> Engine::HeadRowsOf(const StepInput& input) const {
  std::vector<HeadRow> rows;
  for (size_t i = 0; i < input.sequences.size(); ++i) {
    const StepInput::Sequence& sequence = input.sequences[i];
    const kernels::SequenceRows& place = rows_.sequences[i];
    for (uint32_t r = 0; r < place.num_rows; ++r) {
      HeadRow row{.row = place.first_row + r};
      row.sample = sequence.sample && r + 1 == place.num_rows;
      if (row.sample) row.sampling = slots_.SamplingFor(sequence, place);
      row.score = sequence.score && r < sequence.score_targets.size();
      if (row.score) row.target = sequence.score_targets[r];
      row.return_logits = sequence.return_logits;
      if (row.sample || row.score || row.return_logits) rows.push_back(row);
    }
  }
  return rows;
}

absl::Status Engine::RunHead(const StepInput& input, StepOutput* output) {
  const std::vector<HeadRow> rows = HeadRowsOf(input);
  std::vector<HeadResult> results(rows.size());
  ESSOR_RETURN_IF_ERROR(head_->Run(buffers_.residual, rows, std::span(results)));
  Collect(input, rows, std::move(results), output);
  return absl::OkStatus();
}

void Engine::Collect(const StepInput& input, const std::vector<HeadRow>& rows,
                     std::vector<HeadResult> results, StepOutput* output) {
  size_t next = 0;
  uint32_t first_row = 0;
  for (const StepInput::Sequence& sequence : input.sequences) {
    const auto num_rows =
        sequence.tokens.empty() ? 1 : static_cast<uint32_t>(sequence.tokens.size());
    StepOutput::Scored scored{.slot = sequence.slot, .logprobs = {}, .logits = {}};
    for (; next < rows.size() && rows[next].row < first_row + num_rows; ++next) {
      if (rows[next].sample) output->sampled.push_back({sequence.slot, results[next].token});
      if (rows[next].score) scored.logprobs.push_back(results[next].logprob);
      scored.logits.insert(scored.logits.end(), results[next].logits.begin(),
                           results[next].logits.end());
    }
    if (sequence.score || sequence.return_logits) output->scored.push_back(std::move(scored));
    first_row += num_rows;
  }
}

// The first stage needs the sampled tokens as its next inputs; the last stage has them.
absl::Status Engine::ExchangeSampled(const StepInput& input, const StepOutput& output) {
  const auto num_sampled = static_cast<size_t>(
      std::count_if(input.sequences.begin(), input.sequences.end(),
                    [](const StepInput::Sequence& sequence) { return sequence.sample; }));
  std::vector<TokenId> tokens(num_sampled);
  if (inputs_.layout.last_stage) {
    std::transform(output.sampled.begin(), output.sampled.end(), tokens.begin(),
                   [](const StepOutput::Sampled& sampled) { return sampled.token; });
  }
  const bool crosses = inputs_.layout.first_stage != inputs_.layout.last_stage;
  if (crosses && num_sampled > 0) {
    if (inputs_.layout.last_stage) {
      ESSOR_RETURN_IF_ERROR(pipeline_->Send(std::as_bytes(std::span<const TokenId>(tokens)), 0));
    } else {
      ESSOR_RETURN_IF_ERROR(
          pipeline_->Receive(std::as_writable_bytes(std::span(tokens)), inputs_.plan->pp - 1));
    }
  }
  RecordSampled(input, tokens);
  return absl::OkStatus();
}

void Engine::RecordSampled(const StepInput& input, const std::vector<TokenId>& tokens) {
  size_t next = 0;
  for (const StepInput::Sequence& sequence : input.sequences) {
    if (sequence.sample) slots_.SetLastToken(sequence.slot, tokens[next++]);
  }
}

}  // namespace essor::worker
