#include "signround/text/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/parallel.h"
#include "signround/base/random.h"
#include "signround/text/dataset_source.h"
#include "signround/text/packing.h"

namespace signround {
namespace {

constexpr const char* kWhere = "calibration";
constexpr const char* kSystemPrompt = "You are a helpful assistant.";  // AutoRound's default

std::vector<int64_t> document_order(const DatasetSource& source, uint64_t seed, bool shuffle) {
  const auto n = static_cast<int64_t>(source.documents.items.size());
  // Running text stays in order until it is packed.
  if (shuffle && source.rule == ShuffleRule::kNumpy) return NumpyRandom(seed).permutation(n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (shuffle && !source.documents.continuous) PythonRandom(seed).shuffle(order);
  return order;
}

std::string render_document(const Document& document, const DatasetSpec& spec,
                            const RenderChat& render) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  const std::string prompt = spec.system_prompt.value_or(kSystemPrompt);
  const bool has_own = document.messages.is_array() && !document.messages.empty() &&
                       document.messages[0]["role"] == "system";
  if (!prompt.empty() && !has_own) messages.push_back({{"role", "system"}, {"content", prompt}});
  if (document.messages.is_array()) {
    for (const auto& message : document.messages) messages.push_back(message);
  } else {
    messages.push_back({{"role", "user"}, {"content", document.text}});
  }
  try {
    return render(messages);
  } catch (const Error&) {  // templates that know no system role refuse it
    nlohmann::ordered_json others = nlohmann::ordered_json::array();
    for (const auto& message : messages)
      if (message["role"] != "system") others.push_back(message);
    if (others.size() == messages.size()) throw;
    return render(others);
  }
}

// A conversation without a template is its turns' text end to end, as AutoRound reads ultrachat.
std::string plain_text(const Document& document) {
  if (!document.messages.is_array()) return document.text;
  std::string text;
  for (const auto& message : document.messages)
    if (message["content"].is_string()) text += message["content"].get_ref<const std::string&>();
  return text;
}

struct Collected {
  std::vector<std::vector<int32_t>> rows;
  DatasetCounts counts;
};

// One data set's rows in their order; stops when there are `most`.
Collected collect(const DatasetSpec& spec, const DatasetSource& source,
                  const CalibrationOptions& options, int64_t most, const Tokenizer& tokenizer,
                  const RenderChat& render) {
  require(!spec.apply_chat_template || render, kWhere, "'", spec.name,
          "' asks for the chat template, but the model has none");
  const bool shuffle = options.shuffle && spec.shuffle;
  const auto order = document_order(source, options.seed, shuffle);
  const bool concat = spec.concat.value_or(source.concat);
  const bool running = source.documents.continuous;
  const TruncatingEncoder encoder(tokenizer,
                                  concat && !source.truncate ? INT64_MAX : options.seqlen);
  Packer packer({options.seqlen, concat, tokenizer.bos_id(), tokenizer.eos_id()});

  // Rows of running text are shuffled after they were cut, so all of them are needed.
  const int64_t wanted = running && shuffle ? INT64_MAX : most;
  const size_t batch = static_cast<size_t>(num_threads()) * 16;
  std::vector<std::vector<int32_t>> ids(batch);
  for (size_t begin = 0; begin < order.size() && packer.row_count() < wanted; begin += batch) {
    const size_t n = std::min(batch, order.size() - begin);
    parallel_for(static_cast<int64_t>(n), 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const Document& document = source.documents.items[order[begin + i]];
        if (!document.ids.empty()) {
          ids[i] = encoder.checked(document.ids);
        } else if (document.text.empty() && document.messages.empty()) {
          ids[i].clear();  // what the tokenizer adds of its own is no document
        } else if (spec.apply_chat_template) {
          ids[i] = encoder.encode(render_document(document, spec, render), false);
        } else {
          ids[i] = encoder.encode(plain_text(document), true);
        }
      }
    });
    for (size_t i = 0; i < n && packer.row_count() < wanted; ++i) packer.add(ids[i]);
  }

  DatasetCounts counts = packer.counts();  // before the rows are taken away
  Collected out{packer.take_rows(), std::move(counts)};
  if (running && shuffle && out.rows.size() > 1) PythonRandom(options.seed).shuffle(out.rows);
  if (static_cast<int64_t>(out.rows.size()) > most) out.rows.resize(most);
  out.counts.name = source.name;
  out.counts.documents =
      static_cast<int64_t>(source.documents.items.size()) + source.documents.not_text;
  out.counts.not_text = source.documents.not_text;
  return out;
}

// Joins several data sets: smallest first; num= is honoured, the others share what is left as it
// comes to them.
std::vector<std::vector<int32_t>> join(const std::vector<DatasetSpec>& specs,
                                       std::vector<Collected>& sets,
                                       const CalibrationOptions& options) {
  std::vector<size_t> by_size(sets.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return sets[a].rows.size() < sets[b].rows.size(); });
  int64_t spoken_for = 0, open = 0;
  for (const DatasetSpec& spec : specs) spec.num ? spoken_for += *spec.num : ++open;
  if (spoken_for > options.nsamples) spoken_for = 0;  // the cut to nsamples below then settles it

  struct Row {
    size_t set, row;
  };
  std::vector<Row> rows;
  for (size_t set : by_size) {
    auto share = static_cast<int64_t>(sets[set].rows.size());
    if (!specs[set].num) {
      share = std::min(share, (options.nsamples - spoken_for) / open--);
      spoken_for += share;
    }
    for (int64_t row = 0; row < share; ++row) rows.push_back({set, static_cast<size_t>(row)});
  }
  std::vector<int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  const bool any =
      std::any_of(specs.begin(), specs.end(), [](const DatasetSpec& s) { return s.shuffle; });
  if (options.shuffle && any)
    order = NumpyRandom(options.seed).permutation(static_cast<int64_t>(rows.size()));
  if (static_cast<int64_t>(order.size()) > options.nsamples) order.resize(options.nsamples);
  std::vector<std::vector<int32_t>> samples;
  for (int64_t i : order) {
    samples.push_back(std::move(sets[rows[i].set].rows[rows[i].row]));
    ++sets[rows[i].set].counts.used;
  }
  return samples;
}

[[noreturn]] void fail_without_rows(const CalibrationSet& set) {
  std::string text;
  for (const DatasetCounts& d : set.datasets) {
    text += fmt::format(
        "; {}: {} documents, {} too short (longest {} tokens, median {}), {} empty, {} without "
        "text, {} repetitive",
        d.name, d.documents, d.too_short, d.longest, d.median, d.empty, d.not_text, d.repetitive);
    if (d.concat) text += fmt::format(", {} tokens in all", d.tokens);
  }
  fail(ErrorKind::kInvalidArgument, kWhere, "no sample of ", set.seqlen, " tokens could be made",
       text,
       "; use a smaller --seqlen, more text, or join the documents with :concat=True behind the "
       "data set's name");
}

void check(const CalibrationOptions& options) {
  require(options.nsamples > 0 && options.nsamples <= 10'000'000, kWhere, "nsamples is ",
          options.nsamples, ", expected 1 to 10000000");
  require(options.seqlen >= 2 && options.seqlen <= (int64_t{1} << 24), kWhere, "seqlen is ",
          options.seqlen, ", expected 2 to 2^24");
}

}  // namespace

CalibrationSet load_calibration(const CalibrationOptions& asked, const Tokenizer& tokenizer,
                                const RenderChat& render) {
  check(asked);
  CalibrationOptions options = asked;
  CalibrationSet set;
  if (options.max_position > 0 && options.seqlen > options.max_position) {
    options.seqlen = std::max<int64_t>(options.max_position, 2);
    set.warnings.push_back(fmt::format("seqlen cut from {} to {}, the model's longest input",
                                       asked.seqlen, options.seqlen));
  }
  set.seqlen = options.seqlen;
  set.requested = options.nsamples;

  const auto specs = parse_dataset_specs(options.dataset);
  std::vector<Collected> collected;
  for (const DatasetSpec& spec : specs) {
    const DatasetSource source = open_dataset(spec);
    set.warnings.insert(set.warnings.end(), source.documents.warnings.begin(),
                        source.documents.warnings.end());
    // Sharing among several needs to know how much each has, unless num= says how much it may give.
    const int64_t most = spec.num ? *spec.num : specs.size() == 1 ? options.nsamples : INT64_MAX;
    collected.push_back(collect(spec, source, options, most, tokenizer, render));
    const auto rows = static_cast<int64_t>(collected.back().rows.size());
    if (spec.num && rows < *spec.num)
      set.warnings.push_back(
          fmt::format("{}: {} samples asked with num=, {} found", source.name, *spec.num, rows));
  }
  if (collected.size() == 1) {
    set.samples = std::move(collected[0].rows);
    if (static_cast<int64_t>(set.samples.size()) > options.nsamples)
      set.samples.resize(options.nsamples);
    collected[0].counts.used = static_cast<int64_t>(set.samples.size());
  } else {
    set.samples = join(specs, collected, options);
  }
  for (Collected& one : collected) set.datasets.push_back(std::move(one.counts));
  if (set.samples.empty()) fail_without_rows(set);
  if (static_cast<int64_t>(set.samples.size()) < options.nsamples)
    set.warnings.push_back(fmt::format("{} calibration samples of {} tokens asked, {} found",
                                       options.nsamples, options.seqlen, set.samples.size()));
  return set;
}

std::string CalibrationSet::describe() const {
  std::string text = fmt::format("{} samples of {} tokens", samples.size(), seqlen);
  for (const DatasetCounts& d : datasets) {
    text += fmt::format(
        "\n{}: {} of {} rows used{}; {} of {} documents read, {} too short, {} empty, {} without "
        "text, {} repetitive",
        d.name, d.used, d.rows, d.concat ? " (documents joined)" : "", d.examined,
        d.documents - d.not_text, d.too_short, d.empty, d.not_text, d.repetitive);
  }
  return text;
}

uint64_t CalibrationSet::hash() const {
  std::vector<uint64_t> parts{static_cast<uint64_t>(seqlen)};
  for (const auto& sample : samples) parts.push_back(xxh3(std::as_bytes(std::span(sample))));
  return xxh3(std::as_bytes(std::span(parts)));
}

std::vector<uint8_t> loss_mask(const std::vector<int32_t>& ids, int32_t pad_id) {
  std::vector<uint8_t> mask(ids.size(), 1);
  if (ids.empty()) return mask;
  if (pad_id >= 0) {
    for (size_t i = 0; i < ids.size(); ++i) mask[i] = ids[i] != pad_id;
  } else {
    for (size_t i = ids.size() - 1; i-- > 0 && ids[i] == ids.back();) mask[i] = 0;
  }
  mask.back() = 0;
  return mask;
}

}  // namespace signround
