#include "kernels/reference/linear_reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/float16.h"
#include "kernels/activation_quantisation.h"

namespace essor::kernels::reference {
namespace {

constexpr uint32_t kBlock = 32;

void QuantiseBlock(const float* x, float* out) {
  float amax = 0;
  for (uint32_t c = 0; c < kBlock; ++c) {
    if (!std::isfinite(x[c])) {
      std::fill(out, out + kBlock, std::nanf(""));
      return;
    }
    amax = std::max(amax, std::abs(x[c]));
  }
  const bool tiny = amax < kTinyAmax;
  const float scale = tiny ? 0 : amax / kInt8Max;
  const float inverse = tiny ? 0 : kInt8Max / amax;
  for (uint32_t c = 0; c < kBlock; ++c) out[c] = std::nearbyint(x[c] * inverse) * scale;
}

// y[t, n] for all t of one output row n.
void MultiplyRow(const LinearParams& params, const std::vector<float>& x, uint32_t n,
                 const LinearOutput& output, std::vector<float>& row) {
  const uint32_t k = output.weight.k;
  UnpackRow(output.weight, n, row);
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    double sum = 0;
    for (uint32_t c = 0; c < k; ++c) {
      sum += static_cast<double>(x[size_t{t} * k + c]) * static_cast<double>(row[c]);
    }
    if (output.bias != nullptr) sum += output.bias[n];
    float& y = output.y[size_t{t} * output.y_stride + n];
    y = static_cast<float>(output.accumulate ? y + sum : sum);
  }
}

// See GatedActivation. NaN stays NaN.
float Activate(float gate, float up, const GatedActivation& activation) {
  if (activation.limit == 0) return gate / (1.0f + std::exp(-gate)) * up;
  const float g = gate > activation.limit ? activation.limit : gate;
  const float capped = up > activation.limit ? activation.limit : up;
  const float u = capped < -activation.limit ? -activation.limit : capped;
  return g / (1.0f + std::exp(-activation.alpha * g)) * (u + 1);
}

std::vector<float> Multiply(std::span<const float> x, uint32_t num_rows, const PackedMatrix& weight,
                            const float* bias, bool split_x = false) {
  std::vector<float> y(size_t{num_rows} * weight.n);
  const LinearOutput output{.weight = weight, .bias = bias, .y = y.data(), .y_stride = weight.n};
  Linear({.x = x.data(),
          .x_stride = weight.k,
          .num_rows = num_rows,
          .outputs = {&output, 1},
          .split_x = split_x});
  return y;
}

// [num_rows, K] to [num_rows, H].
std::vector<float> Ffn(std::span<const float> x, uint32_t num_rows, const GatedFfnWeights& weights,
                       const GatedActivation& activation) {
  std::vector<float> hidden = Multiply(x, num_rows, weights.gate, weights.gate_bias);
  const std::vector<float> up = Multiply(x, num_rows, weights.up, weights.up_bias);
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = Activate(hidden[i], up[i], activation);
  return Multiply(hidden, num_rows, weights.down, weights.down_bias, /*split_x=*/true);
}

// Runs expert `index` on its rows; row (t, j) of the result goes to outputs[t * top_k + j].
void RunExpert(const MoeFfnParams& params, uint32_t index, std::vector<float>& outputs) {
  const GatedFfnWeights& weights = params.experts[index];
  const uint32_t k = weights.gate.k;
  std::vector<size_t> places;
  std::vector<float> x;
  for (size_t place = 0; place < size_t{params.num_rows} * params.top_k; ++place) {
    if (params.expert_ids[place] != params.first_expert + index) continue;
    const float* row = params.x + place / params.top_k * k;
    places.push_back(place);
    const float factor = params.weigh_input ? params.expert_weights[place] : 1.0f;
    for (uint32_t c = 0; c < k; ++c) x.push_back(row[c] * factor);
  }
  const std::vector<float> y =
      Ffn(x, static_cast<uint32_t>(places.size()), weights, params.activation);
  const size_t h = weights.down.n;
  for (size_t i = 0; i < places.size(); ++i) {
    std::copy_n(y.data() + i * h, h, outputs.data() + places[i] * h);
  }
}

bool IsPresent(const MoeFfnParams& params, size_t place) {
  // Unsigned: an expert before the first one present is far beyond the last one too.
  return params.expert_ids[place] - params.first_expert < params.experts.size();
}

// [T * k, H], zeros where the expert is absent.
std::vector<float> RunExperts(const MoeFfnParams& params) {
  std::vector<float> outputs(size_t{params.num_rows} * params.top_k * params.experts[0].down.n);
  for (uint32_t i = 0; i < params.experts.size(); ++i) RunExpert(params, i, outputs);
  return outputs;
}

}  // namespace

void RoundActivations(WeightFormat format, std::span<const float> x, std::span<float> out) {
  switch (format) {
    case WeightFormat::kF32:
      std::copy(x.begin(), x.end(), out.begin());
      return;
    case WeightFormat::kBF16:
    case WeightFormat::kFp8:
    case WeightFormat::kFp4:
    case WeightFormat::kInt4:
      for (size_t i = 0; i < x.size(); ++i) out[i] = ToFloat(ToBFloat16(x[i]));
      return;
    case WeightFormat::kQ8:
    case WeightFormat::kQ4:
      for (size_t i = 0; i < x.size(); i += kBlock) QuantiseBlock(&x[i], &out[i]);
      return;
  }
}

void SplitToBFloat16(std::span<const float> x, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) {
    const float first = ToFloat(ToBFloat16(x[i]));
    out[i] = first + ToFloat(ToBFloat16(x[i] - first));
  }
}

void Linear(const LinearParams& params) {
  for (const LinearOutput& output : params.outputs) {
    const uint32_t k = output.weight.k;
    const bool split = params.split_x && TakesBFloat16(output.weight.format);
    std::vector<float> x(size_t{params.num_rows} * k);
    for (uint32_t t = 0; t < params.num_rows; ++t) {
      const std::span<const float> row(params.x + size_t{t} * params.x_stride, k);
      const std::span<float> rounded = std::span(x).subspan(size_t{t} * k, k);
      if (split) {
        SplitToBFloat16(row, rounded);
      } else {
        RoundActivations(output.weight.format, row, rounded);
      }
    }
    std::vector<float> row(k);
    for (uint32_t n = 0; n < output.weight.n; ++n) MultiplyRow(params, x, n, output, row);
  }
}

void GatedFfn(const GatedFfnParams& params) {
  const std::span<const float> x(params.x, size_t{params.num_rows} * params.weights.gate.k);
  const std::vector<float> y = Ffn(x, params.num_rows, params.weights, params.activation);
  std::copy(y.begin(), y.end(), params.y);
}

void MoeFfn(const MoeFfnParams& params) {
  const size_t h = params.experts[0].down.n;
  const std::vector<float> outputs = RunExperts(params);
  for (size_t t = 0; t < params.num_rows; ++t) {
    for (size_t i = 0; i < h; ++i) {
      double sum = 0;
      for (size_t place = t * params.top_k; place < (t + 1) * params.top_k; ++place) {
        if (!IsPresent(params, place)) continue;
        const double weight = params.weigh_input ? 1.0 : double{params.expert_weights[place]};
        sum += weight * static_cast<double>(outputs[place * h + i]);
      }
      params.y[t * h + i] = static_cast<float>(sum);
    }
  }
}

void MoeExpertRows(const MoeFfnParams& params) {
  const size_t h = params.experts[0].down.n;
  const std::vector<float> outputs = RunExperts(params);
  float* y = params.y;
  for (size_t place = 0; place < size_t{params.num_rows} * params.top_k; ++place) {
    if (!IsPresent(params, place)) continue;
    y = std::copy_n(outputs.data() + place * h, h, y);
  }
}

void CombineExperts(const CombineExpertsParams& params) {
  for (size_t t = 0; t < params.num_rows; ++t) {
    for (size_t i = 0; i < params.width; ++i) {
      double sum = 0;
      for (size_t place = t * params.top_k; place < (t + 1) * params.top_k; ++place) {
        double output = 0;
        for (uint32_t s = 0; s < params.num_slices; ++s) {
          const size_t row = params.row_ids[place * params.num_slices + s];
          output += static_cast<double>(params.rows[row * params.width + i]);
        }
        const float weight = params.expert_weights == nullptr ? 1.0f : params.expert_weights[place];
        sum += double{weight} * output;
      }
      params.y[t * params.width + i] = static_cast<float>(sum);
    }
  }
}

}  // namespace essor::kernels::reference
