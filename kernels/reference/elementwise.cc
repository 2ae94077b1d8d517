#include "kernels/reference/elementwise.h"

#include <cmath>
#include <cstddef>
#include <span>

namespace essor::kernels::reference {
namespace {

double SumSquares(const float* x, uint32_t width) {
  double squares = 0;
  for (uint32_t i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * x[i];
  return squares;
}

// `weight` may be null: all 1.
void NormRow(const float* x, const float* weight, uint32_t width, float eps, float* y) {
  const double squares = SumSquares(x, width);
  const double inverse_rms = 1.0 / std::sqrt(squares / width + eps);
  for (uint32_t i = 0; i < width; ++i) {
    y[i] = static_cast<float>(x[i] * inverse_rms) * (weight == nullptr ? 1.0f : weight[i]);
  }
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void RotateHead(float* head, const float* cos, const float* sin, uint32_t rotary_dim,
                bool interleaved) {
  const uint32_t half = rotary_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    float& first = head[interleaved ? 2 * i : i];
    float& second = head[interleaved ? 2 * i + 1 : i + half];
    const double a = first;
    const double b = second;
    first = static_cast<float>(a * cos[i] - b * sin[i]);
    second = static_cast<float>(b * cos[i] + a * sin[i]);
  }
}

void NormAndRotateHeads(const QkNormRopeParams& params, float* heads, uint32_t num_heads,
                        uint32_t head_stride, const float* norm, uint32_t position) {
  const size_t table_row = static_cast<size_t>(position) * (params.rotary_dim / 2);
  for (uint32_t h = 0; h < num_heads; ++h) {
    float* head = heads + static_cast<size_t>(h) * head_stride;
    if (norm != nullptr) NormRow(head, norm, params.head_dim, params.norm_eps, head);
    if (params.rotary_dim != 0) {
      RotateHead(head, params.cos + table_row, params.sin + table_row, params.rotary_dim,
                 params.interleaved);
    }
    if (params.unit_norm_after) NormRow(head, nullptr, params.head_dim, params.norm_eps, head);
  }
}

// The queries of one row; there may be none, and then no pointer to them either.
void NormAndRotateQueries(const QkNormRopeParams& params, uint32_t t) {
  if (params.num_heads == 0) return;
  float* q = params.q + static_cast<size_t>(t) * params.q_stride;
  const size_t stride = params.q_head_stride == 0 ? params.head_dim : params.q_head_stride;
  NormAndRotateHeads(params, q, params.num_heads, static_cast<uint32_t>(stride), params.q_norm,
                     params.positions[t]);
  if (params.temperature.scale == 0) return;
  const float factor = params.temperature.FactorAt(params.positions[t]);
  for (uint32_t i = 0; i < params.num_heads * params.head_dim; ++i) {
    q[i / params.head_dim * stride + i % params.head_dim] *= factor;
  }
}

}  // namespace

void RmsNorm(const RmsNormParams& params) {
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    const size_t row = static_cast<size_t>(t) * params.width;
    const float* x = params.x + row;
    if (params.residual != nullptr) {
      float* residual = params.residual + row;
      for (uint32_t i = 0; i < params.width; ++i) residual[i] += x[i];
      x = residual;
    }
    NormRow(x, params.weight, params.width, params.eps, params.y + row);
  }
}

void LayerNorm(const LayerNormParams& params) {
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    const float* x = params.x + static_cast<size_t>(t) * params.width;
    float* y = params.y + static_cast<size_t>(t) * params.width;
    double mean = 0;
    for (uint32_t i = 0; i < params.width; ++i) mean += x[i];
    mean /= params.width;
    double variance = 0;
    for (uint32_t i = 0; i < params.width; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double factor = 1.0 / std::sqrt(variance / params.width + params.eps);
    for (uint32_t i = 0; i < params.width; ++i) {
      y[i] = static_cast<float>((x[i] - mean) * factor * params.weight[i] + params.bias[i]);
    }
  }
}

void RowSquares(const RowSquaresParams& params) {
  for (size_t t = 0; t < params.num_rows; ++t) {
    params.squares[t * params.squares_stride] =
        static_cast<float>(SumSquares(params.x + t * params.x_stride, params.width));
  }
}

void NormBySquares(const NormBySquaresParams& params) {
  for (size_t t = 0; t < params.num_rows; ++t) {
    float* x = params.x + t * params.x_stride;
    const double mean =
        static_cast<double>(params.squares[t * params.squares_stride]) / params.total_width;
    const double inverse_rms = 1.0 / std::sqrt(mean + params.eps);
    for (uint32_t i = 0; i < params.width; ++i) {
      x[i] = static_cast<float>(x[i] * inverse_rms) * params.weight[i];
    }
  }
}

void Embedding(const EmbeddingParams& params) {
  const uint32_t width = params.table.k;
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    const std::span<float> y(params.y + static_cast<size_t>(t) * width, width);
    const uint32_t id = params.token_ids[t];
    if (id >= params.first_id && id - params.first_id < params.table.n) {
      UnpackRow(params.table, id - params.first_id, y);
    } else {
      for (float& value : y) value = 0;
    }
  }
}

void QkNormRope(const QkNormRopeParams& params) {
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    NormAndRotateQueries(params, t);
    if (params.num_kv_heads == 0) continue;
    NormAndRotateHeads(params, params.k + static_cast<size_t>(t) * params.k_stride,
                       params.num_kv_heads, params.head_dim, params.k_norm, params.positions[t]);
  }
}

void Silu(float* x, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) x[i] = static_cast<float>(x[i] * Sigmoid(x[i]));
}

void GateHeads(const GateHeadsParams& params) {
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    for (uint32_t h = 0; h < params.num_heads; ++h) {
      const size_t row = static_cast<size_t>(t) * params.num_heads + h;
      float* y = params.y + row * params.head_dim;
      const float* gate = params.gate + static_cast<size_t>(t) * params.gate_stride +
                          static_cast<size_t>(h) * params.gate_head_stride;
      for (uint32_t i = 0; i < params.head_dim; ++i) {
        const double factor =
            params.kind == Gate::kSilu ? gate[i] * Sigmoid(gate[i]) : Sigmoid(gate[i]);
        y[i] = static_cast<float>(y[i] * factor);
      }
    }
  }
}

void AddGated(const AddGatedParams& params) {
  for (size_t i = 0; i < static_cast<size_t>(params.num_rows) * params.width; ++i) {
    params.y[i] += static_cast<float>(Sigmoid(params.gates[i / params.width]) * params.x[i]);
  }
}

void WeightedSum(const WeightedSumParams& params) {
  for (uint64_t i = 0; i < params.count; ++i) {
    params.z[i] = static_cast<float>(static_cast<double>(params.alpha) * params.x[i] +
                                     static_cast<double>(params.beta) * params.y[i]);
  }
}

void Add(float* y, const float* x, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) y[i] += x[i];
}

}  // namespace essor::kernels::reference
