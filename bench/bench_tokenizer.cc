// Rate of a tokenizer: bench_tokenizer MODEL TEXTS.jsonl [SECONDS]. One thread, processor time, the sum of each piece's best
// time (pieces of 16 texts: a busy machine disturbs short spans less); prints one JSON object. scripts/peers/tokenizer_speed.py runs it beside the `tokenizers` package.
#include <algorithm>
#include <ctime>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/base/error.h"
#include "signround/text/tokenizer.h"

namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: bench_tokenizer MODEL TEXTS.jsonl [SECONDS]\n"), 2;
  try {
    const double load_start = cpu_seconds();
    const auto tokenizer = signround::Tokenizer::load(argv[1]);
    const double load = cpu_seconds() - load_start;
    std::vector<std::string> texts;
    size_t bytes = 0;
    std::ifstream in(argv[2], std::ios::binary);
    for (std::string line; std::getline(in, line);) {
      texts.push_back(nlohmann::json::parse(line).at("text"));
      bytes += texts.back().size();
    }
    const double limit = argc > 3 ? std::atof(argv[3]) : 2;
    constexpr size_t kPiece = 16;
    std::vector<double> best((texts.size() + kPiece - 1) / kPiece, 1e30);
    double total = 0;
    size_t tokens = 0;
    do {
      tokens = 0;
      for (size_t piece = 0; piece < best.size(); ++piece) {
        const double start = cpu_seconds();
        for (size_t i = piece * kPiece; i < std::min(texts.size(), (piece + 1) * kPiece); ++i)
          tokens += tokenizer->encode(texts[i], true).size();
        const double seconds = cpu_seconds() - start;
        best[piece] = std::min(best[piece], seconds);
        total += seconds;
      }
    } while (total < limit);
    double sum = 0;
    for (double seconds : best) sum += seconds;
    std::printf("{\"bytes\": %zu, \"tokens\": %zu, \"load_seconds\": %.3f, \"mb_per_second\": %.3f}\n",
                bytes, tokens, load, static_cast<double>(bytes) / sum / 1e6);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_tokenizer: %s\n", error.what());
    return 1;
  }
}
