#include <cstdio>
#include <map>

#include "signround/cli/commands.h"
#include "signround/cli/flags.h"
#include "signround/formats/decoded_checkpoint.h"
#include "signround/formats/open_model.h"

namespace signround {

namespace {

struct Row {
  std::string name, dtype, shape, scheme;
  int64_t weights = 0, bytes = 0;
  double bits() const {
    return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0;
  }
};

}  // namespace

int cmd_inspect(int argc, const char* const* argv) {
  std::string model, filter;
  bool json = false, summary = false;
  Flags flags(
      "inspect MODEL [flags]",
      "Lists the tensors of a checkpoint with dtype, shape, scheme, bits per weight and size.");
  flags.positional("MODEL", model, "folder, .gguf file or Hub id");
  flags.add("filter", filter, {.help = "only tensors whose name contains this", .value = "TEXT"});
  flags.add("summary", summary, {.help = "only the totals"});
  flags.add("json", json, {.help = "print a JSON object"});
  if (!flags.parse(argc, argv)) return 0;
  flags.check();

  const auto checkpoint = open_model(model);
  const auto raw = open_model(model, false);
  const QuantizedCheckpoint* quantized = as_quantized(*checkpoint);
  std::vector<Row> rows;
  std::map<std::string, Row> totals;
  int64_t weights = 0, bytes = 0;
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    if (tensor.name.find(filter) == std::string::npos) continue;
    Row row{.name = tensor.name,
            .dtype = std::string(name_of(tensor.dtype)),
            .shape = shape_text(tensor.shape),
            .scheme = {},
            .weights = tensor.numel(),
            .bytes = tensor.nbytes()};
    const std::string layer = tensor.name.ends_with(".weight")
                                  ? tensor.name.substr(0, tensor.name.size() - 7)
                                  : tensor.name;
    if (const QuantizedView* view = quantized ? quantized->quantized(layer) : nullptr) {
      row.scheme = describe(view->scheme);
      row.bytes = 0;
      for (const Part& part : parts_of(view->packing))
        if (const TensorInfo* info = raw->find(layer + std::string(part.suffix)))
          row.bytes += info->nbytes();
    }
    Row& total = totals[row.scheme.empty() ? row.dtype : row.scheme];
    total.weights += row.weights, total.bytes += row.bytes;
    weights += row.weights, bytes += row.bytes;
    rows.push_back(std::move(row));
  }
  if (json) {
    nlohmann::ordered_json all = {{"model", model},
                                  {"model_type", checkpoint->config().value("model_type", "")},
                                  {"file_bytes", checkpoint->bytes_on_disk()},
                                  {"weights", weights},
                                  {"tensor_bytes", bytes}};
    for (const auto& [name, t] : totals)
      all["kinds"][name] = {
          {"weights", t.weights}, {"bytes", t.bytes}, {"bits_per_weight", t.bits()}};
    all["tensors"] = nlohmann::ordered_json::array();
    for (const auto& r : rows)
      all["tensors"].push_back({{"name", r.name},
                                {"dtype", r.dtype},
                                {"shape", r.shape},
                                {"scheme", r.scheme},
                                {"bytes", r.bytes},
                                {"bits_per_weight", r.bits()}});
    std::printf("%s\n", all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return 0;
  }
  if (!summary)
    for (const auto& r : rows)
      std::printf("%-56s %-5s %-16s %-22s %7.3f bits %12lld bytes\n", r.name.c_str(),
                  r.dtype.c_str(), r.shape.c_str(), r.scheme.c_str(), r.bits(),
                  static_cast<long long>(r.bytes));
  std::printf("%s: %s, %zu tensors, %.1f M weights, %.1f MB, %.3f bits per weight\n", model.c_str(),
              checkpoint->config().value("model_type", "?").c_str(), rows.size(),
              static_cast<double>(weights) / 1e6, static_cast<double>(bytes) / 1e6,
              weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0.0);
  for (const auto& [name, t] : totals)
    std::printf("  %-24s %10.2f M weights %12.2f MB %8.3f bits per weight\n", name.c_str(),
                static_cast<double>(t.weights) / 1e6, static_cast<double>(t.bytes) / 1e6, t.bits());
  return 0;
}

}  // namespace signround
