#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/rope_table.h"
#include "model/plan/attention_shape.h"
#include "model/plan/scratch_widths.h"
#include "model/spec/rope_frequencies.h"

namespace essor::worker {
namespace {

KvMemory::Shape KvShapeOf(const Engine::Inputs& inputs) {
  return {.spec = inputs.spec,
          .layout = &inputs.layout,
          .limits = inputs.limits,
          .capacity = inputs.capacity};
}

SlotLimits SlotLimitsOf(const Engine::Inputs& inputs) {
  const model::ServingLimits& limits = inputs.limits;
  return {.num_slots = limits.max_sequences,
          .num_blocks = inputs.capacity.num_blocks,
          .block_tokens = limits.block_tokens,
          .max_context_tokens = limits.max_context_tokens,
          .max_step_tokens = limits.max_step_tokens,
          .vocab_size = inputs.spec->vocab_size,
          .num_window_blocks = inputs.capacity.num_window_blocks,
          .num_snapshots = inputs.capacity.num_snapshots,
          .kinds = model::KvKindsOf(*inputs.spec, limits.max_context_tokens),
          .group = inputs.layout.dp_index};
}

}  // namespace

std::vector<GroupSpec> GroupsOf(const model::RankLayout& layout, const model::ParallelPlan& plan) {
  std::vector<uint32_t> pipeline;
  for (uint32_t stage = 0; stage < plan.pp; ++stage) {
    pipeline.push_back(stage * plan.RanksPerStage() + layout.rank_in_stage);
  }
  std::vector<GroupSpec> groups = {
      {.name = "tp", .ranks = layout.tp_ranks},
      {.name = plan.dp > 1 ? "dp" : "stage", .ranks = layout.group_ranks},
      {.name = "pp", .ranks = std::move(pipeline)}};
  if (plan.dp > 1) groups.push_back({.name = "stage", .ranks = layout.stage_ranks});
  return groups;
}

uint64_t Engine::MaxExchangeBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                                  const model::ServingLimits& limits,
                                  const std::vector<model::Range>& vocab_slices) {
  const uint64_t rows =
      std::max<uint64_t>(limits.max_step_tokens,
                         model::ExpertExchangeSizesOf(spec, layout, limits.max_step_tokens).rows);
  const uint64_t activations = rows * spec.hidden_size * sizeof(float);
  return std::max(activations, OutputHead::MaxExchangeBytes(vocab_slices));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Inputs inputs) {
  ESSOR_CHECK(inputs.communicators.size() == GroupsOf(inputs.layout, *inputs.plan).size());
  ESSOR_ASSIGN_OR_RETURN(KvMemory kv, KvMemory::Create(KvShapeOf(inputs)));
  Arena measured = Arena::Measure();
  TakeWorkspace(measured, inputs);
  ESSOR_ASSIGN_OR_RETURN(Arena arena,
                         Arena::Allocate(measured.used_bytes(), "workspaces of a step"));
  std::unique_ptr<Engine> engine(new Engine(std::move(inputs), std::move(arena), std::move(kv)));
  engine->BuildLayers();
  return engine;
}

uint64_t Engine::WorkspaceBytes(const model::ModelSpec& spec, const model::RankLayout& layout,
                                const model::ServingLimits& limits,
                                const std::vector<model::Range>& vocab_slices) {
  Inputs inputs{};
  inputs.spec = &spec;
  inputs.layout = layout;
  inputs.vocab_slices = vocab_slices;
  inputs.limits = limits;
  Arena arena = Arena::Measure();
  TakeWorkspace(arena, inputs);
  return arena.used_bytes();
}

Engine::Engine(Inputs inputs, Arena arena, KvMemory kv)
    : inputs_(std::move(inputs)),
      tp_(inputs_.communicators[0].get()),
      group_(inputs_.communicators[1].get()),
      pipeline_(inputs_.communicators[2].get()),
      stage_(inputs_.plan->dp > 1 ? inputs_.communicators[3].get() : nullptr),
      arena_(std::move(arena)),
      kv_(std::move(kv)),
      workspace_(TakeWorkspace(arena_, inputs_)),
      slots_(SlotLimitsOf(inputs_)) {
  if (inputs_.layout.first_stage && !inputs_.layout.last_stage) {
    awaited_.emplace(pipeline_, inputs_.plan->pp - 1, inputs_.limits.max_sequences);
  }
}

Engine::Buffers Engine::TakeBuffers(Arena& arena, const Inputs& inputs) {
  const uint64_t count = uint64_t{inputs.limits.max_step_tokens} * inputs.spec->hidden_size;
  Buffers buffers;
  buffers.residual = arena.Take<float>(count);
  buffers.normed = arena.Take<float>(count);
  buffers.delta = arena.Take<float>(count);
  return buffers;
}

Engine::Workspace Engine::TakeWorkspace(Arena& arena, const Inputs& inputs) {
  Workspace workspace{.buffers = TakeBuffers(arena, inputs),
                      .scratch = TakeLayerScratch(arena, *inputs.spec, inputs.layout,
                                                  inputs.limits.max_step_tokens),
                      .rope = TakeRopeTables(arena, inputs),
                      .head = nullptr,
                      .history = nullptr};
  if (!inputs.layout.last_stage) return workspace;
  workspace.head = std::make_unique<OutputHead>(
      OutputHead::Inputs{
          .spec = inputs.spec,
          .layout = &inputs.layout,
          .vocab_slices = inputs.vocab_slices,
          .weights = inputs.weights,
          .stage = inputs.communicators.empty() ? nullptr : inputs.communicators[1].get(),
          .stream = inputs.stream.get()},
      arena);
  workspace.history = std::make_unique<TokenHistory>(
      TokenHistory::Limits{.num_slots = inputs.limits.max_sequences,
                           .max_context_tokens = inputs.limits.max_context_tokens,
                           .vocab = inputs.layout.vocab},
      arena);
  return workspace;
}

// One table for all layers that rotate alike; filled only when the arena has memory.
std::vector<RopeTable> Engine::TakeRopeTables(Arena& arena, const Inputs& inputs) {
  const auto rope_of = [&](uint64_t index) -> const model::RopeSpec& {
    return model::RopeOf(inputs.spec->layers[inputs.layout.layers.begin + index].attention);
  };
  std::vector<RopeTable> tables;
  for (uint64_t index = 0; index < inputs.layout.layers.size(); ++index) {
    const model::RopeSpec& rope = rope_of(index);
    uint64_t same = 0;
    while (same < index && rope_of(same) != rope) ++same;
    if (same < index) {
      tables.push_back(tables[same]);
      continue;
    }
    const uint32_t positions = inputs.limits.max_context_tokens;
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
  return KvMemory::Bytes(
      {.spec = &spec, .layout = &layout, .limits = limits, .capacity = capacity});
}

void Engine::BuildLayers() {
  for (uint32_t i = 0; i < inputs_.layout.per_layer.size(); ++i) {
    const LayerInputs layer{
        .spec = inputs_.spec,
        .layout = &inputs_.layout,
        .index = i,
        .weights = &inputs_.weights->layers[i],
        .groups = {.tp = tp_, .group = group_, .stage = stage_},
        .scratch = workspace_.scratch,
        .rope = workspace_.rope[i],
        .cache = kv_.Cache(i),
        .state = kv_.States(i),
        .state_slots = kv_.state_slots(),
        .stream = inputs_.stream.get(),
    };
    const model::LayerSpec& parts = inputs_.spec->layers[inputs_.layout.layers.begin + i];
    layers_.push_back({.norm = layer.weights->attention_norm,
                       .post_norm = layer.weights->attention_post_norm,
                       .residual = parts.attention_residual,
                       .layer = MakeAttentionLayer(layer)});
    kv_.Keep(i, layers_.back().layer->Kept());
    layers_.push_back({.norm = layer.weights->ffn_norm,
                       .post_norm = layer.weights->ffn_post_norm,
                       .residual = parts.ffn_residual,
                       .layer = MakeFfnLayer(layer)});
  }
}

StepGroups Engine::Groups() const {
  return {.num_groups = inputs_.plan->dp,
          .slots_per_group = inputs_.limits.max_sequences,
          .max_step_tokens = inputs_.limits.max_step_tokens};
}

absl::StatusOr<StepOutput> Engine::Run(const StepInput& input) {
  for (const auto& group : inputs_.communicators) group->SetDeadline(input.deadline);
  if (inputs_.plan->dp == 1) return RunOwn(input, {});
  const StepGroups groups = Groups();
  const uint32_t group = inputs_.layout.dp_index;
  ESSOR_ASSIGN_OR_RETURN(const std::vector<uint32_t> group_rows, RowsOfGroups(input, groups));
  ESSOR_ASSIGN_OR_RETURN(StepOutput output, RunOwn(StepOfGroup(input, groups, group), group_rows));
  RenumberSlots(group * groups.slots_per_group, &output);
  return output;
}

absl::StatusOr<StepOutput> Engine::RunOwn(const StepInput& input,
                                          std::span<const uint32_t> group_rows) {
  const absl::Time start = inputs_.clock->Now();
  StepOutput output;
  output.step_id = input.step_id;
  if (awaited_.has_value()) ESSOR_RETURN_IF_ERROR(awaited_->TakeFor(input, &slots_));
  ESSOR_RETURN_IF_ERROR(slots_.Apply(input, &rows_));
  if (workspace_.history != nullptr) ESSOR_RETURN_IF_ERROR(workspace_.history->Apply(input, rows_));
  CopyAndRestore(input);
  const Batch batch = BatchOf(group_rows);
  if (batch.num_rows == 0) {
    ESSOR_RETURN_IF_ERROR(ServeOtherGroups(batch));
  } else {
    ESSOR_RETURN_IF_ERROR(Begin(batch));
    ESSOR_RETURN_IF_ERROR(RunLayers(batch));
    ESSOR_RETURN_IF_ERROR(Finish(input, &output));
  }
  slots_.Commit(input, rows_);
  SaveStates(input);
  output.compute_time = inputs_.clock->Now() - start;
  return output;
}

absl::Status Engine::ServeOtherGroups(const Batch& batch) {
  const bool any = std::any_of(batch.group_rows.begin(), batch.group_rows.end(),
                               [](uint32_t rows) { return rows > 0; });
  if (!any) return absl::OkStatus();
  for (const HalfLayer& half : layers_) {
    if (!half.layer->ServesOtherGroups()) continue;
    ESSOR_RETURN_IF_ERROR(
        half.layer->Forward(batch, workspace_.buffers.normed, workspace_.buffers.delta));
  }
  return absl::OkStatus();
}

Batch Engine::BatchOf(std::span<const uint32_t> group_rows) const {
  return {.num_rows = static_cast<uint32_t>(rows_.token_ids.size()),
          .token_ids = rows_.token_ids.data(),
          .positions = rows_.positions.data(),
          .sequences = rows_.sequences,
          .window_sequences = rows_.window_sequences,
          .group_rows = group_rows};
}

void Engine::CopyAndRestore(const StepInput& input) {
  for (const StepInput::Copy& copy : input.copies) {
    kv_.CopyBlock(copy.from, copy.to, copy.window, *inputs_.stream);
  }
  for (const StepInput::Start& start : input.starts) {
    if (!start.restore_snapshot.has_value()) continue;
    kv_.RestoreStates(*start.restore_snapshot, start.slot, *inputs_.stream);
  }
}

void Engine::SaveStates(const StepInput& input) {
  for (const StepInput::Sequence& sequence : input.sequences) {
    if (!sequence.save_snapshot.has_value()) continue;
    kv_.SaveStates(sequence.slot, *sequence.save_snapshot, *inputs_.stream);
  }
}

absl::Status Engine::Begin(const Batch& batch) {
  const size_t count = size_t{batch.num_rows} * inputs_.spec->hidden_size;
  if (!inputs_.layout.first_stage) {
    return pipeline_->Receive(std::as_writable_bytes(std::span(workspace_.buffers.residual, count)),
                              inputs_.layout.stage - 1);
  }
  kernels::Embedding({.table = inputs_.weights->embedding,
                      .first_id = static_cast<uint32_t>(inputs_.layout.vocab.begin),
                      .token_ids = batch.token_ids,
                      .num_rows = batch.num_rows,
                      .y = workspace_.buffers.residual},
                     *inputs_.stream);
  return group_->AllReduceSum({workspace_.buffers.residual, count});
}

// What a sub-layer gave is added to the residual together with the next norm, unless its residual
// is scaled.
absl::Status Engine::RunLayers(const Batch& batch) {
  const uint64_t count = uint64_t{batch.num_rows} * inputs_.spec->hidden_size;
  bool delta_pending = false;
  for (const HalfLayer& half : layers_) {
    kernels::RmsNorm({.x = delta_pending ? workspace_.buffers.delta : workspace_.buffers.residual,
                      .residual = delta_pending ? workspace_.buffers.residual : nullptr,
                      .weight = half.norm,
                      .y = workspace_.buffers.normed,
                      .num_rows = batch.num_rows,
                      .width = inputs_.spec->hidden_size,
                      .eps = static_cast<float>(inputs_.spec->norm_eps)},
                     *inputs_.stream);
    ESSOR_RETURN_IF_ERROR(
        half.layer->Forward(batch, workspace_.buffers.normed, workspace_.buffers.delta));
    if (half.post_norm != nullptr) {
      kernels::RmsNorm({.x = workspace_.buffers.delta,
                        .weight = half.post_norm,
                        .y = workspace_.buffers.delta,
                        .num_rows = batch.num_rows,
                        .width = inputs_.spec->hidden_size,
                        .eps = static_cast<float>(inputs_.spec->norm_eps)},
                       *inputs_.stream);
    }
    delta_pending = !half.residual.has_value();
    if (delta_pending) continue;
    kernels::WeightedSum({.x = workspace_.buffers.normed,
                          .y = workspace_.buffers.delta,
                          .z = workspace_.buffers.residual,
                          .count = count,
                          .alpha = static_cast<float>(half.residual->alpha),
                          .beta = static_cast<float>(half.residual->beta)},
                         *inputs_.stream);
  }
  if (delta_pending)
    kernels::Add(workspace_.buffers.residual, workspace_.buffers.delta, count, *inputs_.stream);
  return absl::OkStatus();
}

absl::Status Engine::Finish(const StepInput& input, StepOutput* output) {
  if (inputs_.layout.last_stage) {
    ESSOR_RETURN_IF_ERROR(RunHead(input, output));
  } else {
    const size_t count = rows_.token_ids.size() * inputs_.spec->hidden_size;
    ESSOR_RETURN_IF_ERROR(
        pipeline_->Send(std::as_bytes(std::span<const float>(workspace_.buffers.residual, count)),
                        inputs_.layout.stage + 1));
  }
  return HandOnSampled(input, *output);
}

std::vector<HeadRow> Engine::HeadRowsOf(const StepInput& input) const {
  std::vector<HeadRow> rows;
  for (size_t i = 0; i < input.sequences.size(); ++i) {
    const StepInput::Sequence& sequence = input.sequences[i];
    const kernels::SequenceRows& place = rows_.sequences[i];
    for (uint32_t r = 0; r < place.num_rows; ++r) {
      HeadRow row{.row = place.first_row + r};
      row.sample = sequence.sample && r + 1 == place.num_rows;
      if (row.sample) SampleInto(sequence, place, &row);
      row.score = sequence.score && r < sequence.score_targets.size();
      if (row.score) row.target = sequence.score_targets[r];
      if (row.score) row.score_top = std::min(sequence.score_top, TokenHistory::kMaxLogprobs);
      row.return_logits = sequence.return_logits;
      if (row.sample || row.score || row.return_logits) rows.push_back(row);
    }
  }
  return rows;
}

void Engine::SampleInto(const StepInput::Sequence& sequence, const kernels::SequenceRows& place,
                        HeadRow* row) const {
  row->sampling = slots_.SamplingFor(sequence, place);
  row->adjustment = workspace_.history->AdjustmentFor(sequence.slot, row->sampling.position);
  row->logprobs = workspace_.history->SamplingOf(sequence.slot).logprobs;
}

absl::Status Engine::RunHead(const StepInput& input, StepOutput* output) {
  const std::vector<HeadRow> rows = HeadRowsOf(input);
  std::vector<HeadResult> results(rows.size());
  ESSOR_RETURN_IF_ERROR(
      workspace_.head->Run(workspace_.buffers.residual, rows, std::span(results)));
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
      HeadResult& result = results[next];
      if (rows[next].sample) output->sampled.push_back({sequence.slot, result.token});
      if (rows[next].logprobs.has_value()) {
        output->logprobs.push_back(std::move(result.token_logprob));
      }
      if (rows[next].score) scored.logprobs.push_back(result.target.logprob);
      if (rows[next].score && sequence.score_top > 0) {
        scored.tops.push_back(std::move(result.target.top));
      }
      scored.logits.insert(scored.logits.end(), result.logits.begin(), result.logits.end());
    }
    if (sequence.score || sequence.return_logits) output->scored.push_back(std::move(scored));
    first_row += num_rows;
  }
}

// The first stage needs the sampled tokens as inputs of later steps; the last stage has them.
// Stages between count them only.
absl::Status Engine::HandOnSampled(const StepInput& input, const StepOutput& output) {
  if (awaited_.has_value()) return awaited_->Expect(input, &slots_);
  std::vector<TokenId> tokens(SampledSlots(input).size());
  if (inputs_.layout.last_stage) {
    std::transform(output.sampled.begin(), output.sampled.end(), tokens.begin(),
                   [](const StepOutput::Sampled& sampled) { return sampled.token; });
    if (!inputs_.layout.first_stage && !tokens.empty()) {
      ESSOR_RETURN_IF_ERROR(pipeline_->Send(std::as_bytes(std::span<const TokenId>(tokens)), 0));
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
