#include "signround/pipeline/prepare_awq.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "signround/base/error.h"
#include "signround/eval/text_model.h"
#include "signround/graph/folding.h"
#include "signround/graph/program.h"
#include "signround/graph/stream.h"
#include "signround/io/safetensors.h"
#include "signround/model/load.h"
#include "signround/ops/convert.h"
#include "signround/quant/awq.h"
#include "signround/quant/load_finite.h"

namespace signround {
namespace {

constexpr int64_t kRows = 512;  // samples of each layer's input, on which errors are measured

// Of the inputs of one LinearsOp, over all samples.
struct Observed {
  std::vector<double> sum_abs;
  std::vector<float> rows;  // evenly spread over the samples
  int64_t seen = 0, kept = 0;
};

float rounded_as(float v, DType dtype) {
  return dtype == DType::kBF16 ? round_to_bf16(v) : dtype == DType::kF16 ? round_to_f16(v) : v;
}

// The layers of a folding that are to be rounded.
std::vector<const FormatLayer*> rounded_readers(const Plan& plan, int64_t block,
                                                const Folding& fold) {
  std::vector<const FormatLayer*> rounded;
  for (const auto& layer : plan.layers[static_cast<size_t>(block)])
    if (layer.scheme.bits < 16 &&
        std::find(fold.readers.begin(), fold.readers.end(), layer.name) != fold.readers.end())
      rounded.push_back(&layer);
  return rounded;
}

class Preparation {
 public:
  Preparation(const Checkpoint& source, const Plan& plan,
              const std::vector<std::vector<int32_t>>& samples, const std::filesystem::path& folder)
      : source_(source),
        plan_(plan),
        samples_(samples),
        stream_(plan.nsamples, plan.seqlen, plan.architecture.hidden, plan.stream_dtype,
                plan.scratch_bytes > 0 ? folder : "") {}

  CheckpointFactors run(const std::function<void(int64_t, double)>& on_block) {
    std::vector<float> rows(static_cast<size_t>(plan_.seqlen * plan_.architecture.hidden));
    for (int64_t s = 0; s < plan_.nsamples; ++s) {
      embed_tokens(source_, plan_.architecture, samples_[static_cast<size_t>(s)], rows.data());
      stream_.scatter(s, 1, rows.data());
    }
    for (int64_t i = 0; i <= plan_.blocks.back(); ++i) {
      on_block(i, block(i));
    }
    return std::move(factors_);
  }

 private:
  double block(int64_t index) {
    const Graph graph = plan_.architecture.block(index);
    std::map<std::string, Observed> observed;  // by the first of the layers that read it
    forward(graph, observed);
    error_ = plain_ = 0;
    for (const Folding& fold : foldings(graph)) search(index, fold, observed[fold.readers[0]]);
    for (const auto& param : graph.linear_params()) source_.release(param.name + ".weight");
    return error_ > 0 && plain_ > 0 ? 10 * std::log10(error_ / plain_) : 0;
  }

  void forward(const Graph& graph, std::map<std::string, Observed>& observed) {
    BlockWeights weights(graph, plan_.compute);
    load_finite_weights(source_, graph, weights);
    Program program(
        graph, {.batch = plan_.micro_batch, .seq_len = plan_.seqlen, .compute = plan_.compute});
    int64_t valid = 0;
    const int64_t every = std::max<int64_t>(1, plan_.nsamples * plan_.seqlen / kRows);
    std::vector<float> row;
    program.set_linear_input_observer([&](const LinearsOp& op, const void* x, DType dtype, int64_t,
                                          int64_t stride) {
      const int64_t in = op.params[0].in;
      Observed& o = observed[op.params[0].name];
      o.sum_abs.resize(static_cast<size_t>(in));
      row.resize(static_cast<size_t>(in));
      for (int64_t r = 0; r < valid; ++r, ++o.seen) {
        const auto* at = static_cast<const char*>(x) + r * stride * size_of(dtype);
        convert(1, in, {at, dtype, stride}, {row.data(), DType::kF32, in});
        for (int64_t c = 0; c < in; ++c)
          o.sum_abs[static_cast<size_t>(c)] += std::fabs(row[static_cast<size_t>(c)]);
        if (o.seen % every != 0) continue;
        o.rows.insert(o.rows.end(), row.begin(), row.end());
        ++o.kept;
      }
    });
    for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
      const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first);
      valid = count * plan_.seqlen;
      stream_.gather(first, count, program.input());
      program.forward(weights);
      stream_.scatter(first, count, program.output());
    }
  }

  void search(int64_t index, const Folding& fold, const Observed& observed) {
    const auto rounded = rounded_readers(plan_, index, fold);
    if (rounded.empty() || !fold.why_not.empty()) return;
    std::vector<std::vector<float>> weights;
    std::vector<AwqLayer> layers;
    for (const auto* layer : rounded) {
      weights.push_back(read_linear(source_, {layer->name, layer->out, layer->in, false}));
      layers.push_back({weights.back().data(), layer->out, layer->scheme});
    }
    AwqScales found = awq_search({.in = fold.in,
                                  .rows = observed.kept,
                                  .x = observed.rows.data(),
                                  .sum_abs = observed.sum_abs,
                                  .channel = fold.channel,
                                  .channels = fold.channels},
                                 layers);
    error_ += found.error, plain_ += found.plain_error;
    if (found.ratio > 0) put(fold, std::move(found.scales));
  }

  // A norm's weight is rounded to its type: what it lost, the columns of its readers make up for.
  void put(const Folding& fold, std::vector<float> scales) {
    std::vector<float> inverse(scales.size());
    for (size_t c = 0; c < scales.size(); ++c) inverse[c] = 1 / scales[c];
    const std::string producer = fold.is_norm ? fold.producer : fold.producer + ".weight";
    if (fold.is_norm) {
      const DType dtype = source_.at(producer).dtype;
      const std::vector<float> weight = source_.read_all_f32(producer);
      for (size_t c = 0; c < scales.size(); ++c) {
        const float before = weight[c] + fold.offset;
        const TensorFactors one{.rows = {inverse[c]}, .columns = {}, .offset = fold.offset};
        const float after = rounded_as(scaled(weight[c], one, 0, 0), dtype) + fold.offset;
        if (before / after > 0 && std::isfinite(before / after))
          scales[c] = before / after;
        else
          scales[c] = inverse[c] = 1;
      }
    }
    for (const auto& reader : fold.readers) {
      auto& columns = factors_[reader + ".weight"].columns;
      for (const int64_t channel : fold.channel)
        columns.push_back(scales[static_cast<size_t>(channel)]);
    }
    if (fold.has_bias) factors_[fold.producer + ".bias"].rows = inverse;
    factors_[producer].rows = std::move(inverse);
    factors_[producer].offset = fold.offset;
  }

  const Checkpoint& source_;
  const Plan& plan_;
  const std::vector<std::vector<int32_t>>& samples_;
  ActivationStream stream_;
  CheckpointFactors factors_;
  double error_ = 0, plain_ = 0;  // of the block in work
};

}  // namespace

CheckpointFactors prepare_awq(const Checkpoint& source, const Plan& plan,
                              const std::vector<std::vector<int32_t>>& samples,
                              const std::filesystem::path& folder,
                              const std::function<void(int64_t, double)>& on_block) {
  return Preparation(source, plan, samples, folder).run(on_block);
}

std::vector<std::string> not_folded(const Plan& plan) {
  std::vector<std::string> all;
  for (const int64_t index : plan.blocks)
    for (const Folding& fold : foldings(plan.architecture.block(index))) {
      if (fold.why_not.empty()) continue;
      std::string names;
      for (const auto* layer : rounded_readers(plan, index, fold))
        names += (names.empty() ? "" : ", ") + layer->name;
      if (!names.empty()) all.push_back(names + ": " + fold.why_not);
    }
  return all;
}

int64_t prepare_awq_bytes(const std::vector<std::vector<FormatLayer>>& layers) {
  int64_t most = 0;
  for (const auto& block : layers) {
    int64_t of_block = 0;
    for (const auto& l : block) of_block = std::max(of_block, awq_bytes(l.out, l.in, kRows));
    most = std::max(most, 3 * of_block);  // up to three layers read the same input
  }
  return most;
}

void write_factors(const std::filesystem::path& path, const CheckpointFactors& factors) {
  std::vector<TensorInfo> tensors;
  std::vector<std::span<const float>> values;
  const auto add = [&](const std::string& name, std::span<const float> v) {
    if (v.empty()) return;
    tensors.push_back({name, DType::kF32, {static_cast<int64_t>(v.size())}});
    values.push_back(v);
  };
  for (const auto& [name, f] : factors) {
    add(name + "/rows", f.rows);
    add(name + "/columns", f.columns);
    if (f.offset != 0) add(name + "/offset", {&f.offset, 1});
  }
  SafetensorsWriter file = SafetensorsWriter::create(path, tensors);
  for (size_t i = 0; i < tensors.size(); ++i)
    file.write(tensors[i].name, std::as_bytes(values[i]));
  file.finish();
}

CheckpointFactors read_factors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  CheckpointFactors factors;
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const TensorInfo& tensor = file.tensors()[i];
    const size_t slash = tensor.name.rfind('/');
    const std::string part = slash == std::string::npos ? "" : tensor.name.substr(slash + 1);
    if (tensor.dtype != DType::kF32 || tensor.shape.size() != 1 ||
        (part != "rows" && part != "columns" && !(part == "offset" && tensor.shape[0] == 1)))
      fail(ErrorKind::kCorruptFile, "awq", path.string(), ": ", tensor.name, " of ",
           name_of(tensor.dtype), " ", shape_text(tensor.shape),
           " is none of the factors that this program writes; --restart begins anew");
    std::vector<float> values(static_cast<size_t>(tensor.shape[0]));
    std::memcpy(values.data(), file.bytes(i).data(), file.bytes(i).size());
    TensorFactors& f = factors[tensor.name.substr(0, slash)];
    if (part == "offset")
      f.offset = values[0];
    else
      (part == "rows" ? f.rows : f.columns) = std::move(values);
  }
  return factors;
}

}  // namespace signround
