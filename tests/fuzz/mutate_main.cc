// Runs a fuzz target without libFuzzer: every seed, then RUNS inputs that a generator of fixed seed makes of them, so that
// the tests of every build include a short, repeatable run.
//   TARGET RUNS FOLDER       TARGET --only N FOLDER: the N-th input alone, written to ./input
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

constexpr size_t kMaxBytes = 1 << 16;
constexpr unsigned kSeconds = 120;  // of one input
volatile long g_now = -1;

// Says which input it was; async-signal-safe.
void report(int signal) {
  char text[64] = "input ";
  size_t at = 6;
  char digits[24];
  int count = 0;
  for (long n = g_now; count == 0 || n > 0; n /= 10) digits[count++] = static_cast<char>('0' + n % 10);
  while (count > 0) text[at++] = digits[--count];
  text[at++] = '\n';
  (void)!write(2, text, at);
  std::signal(signal, SIG_DFL);
  if (signal == SIGALRM) _exit(1);
  raise(signal);
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

  std::string make(long number) {
    random_.seed(static_cast<uint32_t>(number));
    std::string input = seeds_[below(seeds_.size())];
    for (size_t n = 1 + below(6); n > 0; --n) change(input);
    if (input.size() > kMaxBytes) input.resize(kMaxBytes);
    return input;
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  void change(std::string& s) {
    const size_t at = below(s.size() + 1), length = std::min(1 + below(16), s.size() - at);
    switch (below(9)) {
      case 0:  // a bit
        if (at < s.size()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
        break;
      case 1:  // a byte of any value
        if (at < s.size()) s[at] = static_cast<char>(below(256));
        break;
      case 2:
        s.erase(at, length);
        break;
      case 3:  // a piece once more
        s.insert(below(s.size() + 1), s.substr(at, 1 + below(64)));
        break;
      case 4: {  // a piece of another seed
        const std::string& other = seeds_[below(seeds_.size())];
        s.insert(at, other.substr(below(other.size()), 1 + below(128)));
        break;
      }
      case 5: {  // a number as files hold it
        static constexpr uint64_t kNumbers[] = {0,      1,          0x7f,        0x80,       0xff,  0x7fff,
                                                0xffff, 0x7fffffff, 0x80000000,  0xffffffff, 1000000007,
                                                UINT64_MAX, UINT64_MAX / 2, uint64_t{1} << 62, uint64_t{1} << 40};
        const uint64_t value = kNumbers[below(std::size(kNumbers))];
        const size_t width = std::min(size_t{1} << below(4), s.size() - at);
        std::memcpy(s.data() + at, &value, width);
        break;
      }
      case 6: {  // a word of the grammars
        static constexpr const char* kWords[] = {"{{",  "}}",   "{%",     "%}", "null",  "true",      "[]", "{}",  "\"\"",
                                                 "-1",  "1e999", "\\u0000", "\xff", "\xed\xa0\x80", "for", "endfor", "if", "|",
                                                 "(",   ")",    "[",      "]",  ":",     "99999999999999999999", "'", ".*", "\\p{L}+"};
        s.insert(at, kWords[below(std::size(kWords))]);
        break;
      }
      case 7:  // an early end
        if (below(8) == 0) s.resize(at);
        break;
      default:  // one piece over another
        if (length > 0) s.replace(at, length, s.substr(below(s.size()), length));
    }
  }

  const std::vector<std::string>& seeds_;
  std::mt19937 random_;
};

void run(const std::string& input, long number) {
  g_now = number;
  alarm(kSeconds);
  // A copy of exact size, so that a sanitizer sees reads beyond its end.
  std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  const bool only = argc == 4 && std::string(argv[1]) == "--only";
  if (argc != 3 && !only) return std::fprintf(stderr, "usage: %s RUNS FOLDER\n", argv[0]), 2;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[argc - 1])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (seeds.empty()) return std::fprintf(stderr, "%s holds no seeds\n", argv[argc - 1]), 2;
  for (const int signal : {SIGABRT, SIGALRM}) std::signal(signal, report);
#ifndef __SANITIZE_ADDRESS__  // which has handlers of its own and then aborts
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, report);
#endif
  Mutator mutator(seeds);
  const auto count = static_cast<long>(seeds.size());
  const auto input = [&](long n) { return n < count ? seeds[static_cast<size_t>(n)] : mutator.make(n); };
  const long runs = std::atol(argv[only ? 2 : 1]);
  if (only) {
    std::ofstream("input", std::ios::binary) << input(runs);
    run(input(runs), runs);
    return 0;
  }
  for (long n = 0; n < count + runs; ++n) run(input(n), n);
  std::printf("%ld inputs\n", count + runs);
}
