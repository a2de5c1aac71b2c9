#include "signround/io/http.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>
#include <span>
#include <thread>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/base/version.h"
#include "signround/io/file.h"

namespace signround {
namespace {

constexpr const char* kWhere = "download";
constexpr int64_t kLongestWaitMs = 60'000;

struct CurlDeleter {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// One request. The file is open only for a download.
struct Transfer {
  std::string url;
  HttpAnswer answer;
  int64_t max_body = 0;
  FileDescriptor file;
  std::filesystem::path path;
  int64_t offset = 0;    // bytes of the file that are there
  int64_t size = -1;     // of the whole file, if known
  bool started = false;  // the first bytes of the body have come
  bool too_large = false;
  std::string problem;  // an exception must not pass through curl
  const std::function<void(int64_t)>* progress = nullptr;
  CURL* curl = nullptr;
};

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

std::string trim(std::string text) {
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n' || text.back() == ' '))
    text.pop_back();
  return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

size_t on_header(char* data, size_t, size_t n, void* raw) noexcept {
  auto& transfer = *static_cast<Transfer*>(raw);
  try {
    const std::string line(data, n);
    auto& headers = transfer.answer.headers;
    if (line.starts_with("HTTP/")) {  // a further answer, behind a redirect
      std::erase_if(headers, [](const auto& h) { return !h.first.starts_with("x-linked-"); });
    } else if (const size_t colon = line.find(':');
               colon != std::string::npos && headers.size() < 200) {
      const std::string name = lower(line.substr(0, colon));
      if (!name.starts_with("x-linked-") || !headers.contains(name))
        headers[name] = trim(line.substr(colon + 1));
    }
  } catch (const std::exception& error) {
    transfer.problem = error.what();
    return 0;
  }
  return n;
}

// Bytes of a file go behind those that are there, unless the server did not understand the range.
void take_file_bytes(Transfer& t, std::string_view bytes) {
  if (!t.started && t.answer.status == 200 && t.offset > 0) {
    if (ftruncate(t.file.get(), 0) != 0) fail_io(kWhere, "truncate", t.path, errno);
    t.offset = 0;
  }
  t.started = true;
  const auto n = static_cast<int64_t>(bytes.size());
  if (t.size >= 0 && n > t.size - t.offset) {
    t.too_large = true;
    return;
  }
  write_fully(kWhere, t.file, t.path, std::as_bytes(std::span(bytes)), t.offset);
  t.offset += n;
  if (t.progress && *t.progress) (*t.progress)(t.offset);
}

size_t on_body(char* data, size_t, size_t n, void* raw) noexcept {
  auto& t = *static_cast<Transfer*>(raw);
  try {
    long status = 0;
    curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, &status);
    t.answer.status = static_cast<int>(status);
    if (t.file.is_open() && (status == 200 || status == 206)) {
      take_file_bytes(t, {data, n});
    } else if (t.file.is_open()) {
      t.answer.body.append(
          data, std::min<size_t>(n, 4096 - std::min<size_t>(t.answer.body.size(), 4096)));
    } else if (static_cast<int64_t>(n) > t.max_body - static_cast<int64_t>(t.answer.body.size())) {
      t.too_large = true;
    } else {
      t.answer.body.append(data, n);
    }
  } catch (const std::exception& error) {
    t.problem = error.what();
  }
  return t.too_large || !t.problem.empty() ? 0 : n;
}

bool is_permanent(CURLcode code) {
  return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ||
         code == CURLE_TOO_MANY_REDIRECTS || code == CURLE_PEER_FAILED_VERIFICATION ||
         code == CURLE_SSL_CACERT_BADFILE;
}

// The text of what went wrong and may go right the next time, or nothing.
std::string perform(Transfer& t, const HttpOptions& options, bool head) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, CurlDeleter> curl(started == CURLE_OK ? curl_easy_init() : nullptr);
  if (!curl) fail(ErrorKind::kIo, kWhere, "libcurl cannot start");
  std::unique_ptr<curl_slist, CurlDeleter> headers;
  for (const std::string& header : options.headers)
    headers.reset(curl_slist_append(headers.release(), header.c_str()));
  char text[CURL_ERROR_SIZE] = "";
  t.curl = curl.get();
  const auto set = [&](CURLoption option, auto value) {
    curl_easy_setopt(curl.get(), option, value);
  };
  set(CURLOPT_URL, t.url.c_str());
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_USERAGENT, (std::string("signround/") + kVersion).c_str());
  set(CURLOPT_ERRORBUFFER, text);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 10L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  set(CURLOPT_CONNECTTIMEOUT, 20L);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // a byte per second for a minute: the connection is dead
  set(CURLOPT_LOW_SPEED_TIME, 60L);
  set(CURLOPT_HEADERFUNCTION, on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&t));
  set(CURLOPT_WRITEFUNCTION, on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&t));
  if (head) set(CURLOPT_NOBODY, 1L);
  // Not CURLOPT_RESUME_FROM: that gives up when the server answers with the whole file.
  if (t.offset > 0) set(CURLOPT_RANGE, (std::to_string(t.offset) + "-").c_str());
  const CURLcode code = curl_easy_perform(curl.get());
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  t.answer.status = static_cast<int>(status);
  if (t.too_large)
    fail(ErrorKind::kCorruptFile, kWhere, t.url, ": the server sends more than was announced");
  if (!t.problem.empty()) throw Error(ErrorKind::kIo, t.problem);
  if (code == CURLE_OK) return "";
  const std::string problem = *text ? text : curl_easy_strerror(code);
  if (is_permanent(code)) fail(ErrorKind::kIo, kWhere, t.url, ": ", problem);
  return problem;
}

bool is_transient(int status) {
  return status == 408 || status == 429 || (status >= 500 && status < 600);
}

int64_t wait_ms(const HttpAnswer& answer, const HttpOptions& options, int attempt) {
  int64_t wait = options.first_delay_ms << std::min(attempt, 10);
  if (const auto it = answer.headers.find("retry-after"); it != answer.headers.end()) {
    int64_t seconds = 0;
    const std::string& value = it->second;
    if (std::from_chars(value.data(), value.data() + value.size(), seconds).ec == std::errc())
      wait = std::clamp<int64_t>(seconds, 0, kLongestWaitMs / 1000) * 1000;
  }
  return std::min(wait, kLongestWaitMs);
}

// Runs `once` (which returns a problem's text or nothing) until it succeeds or the attempts are
// used up.
template <class Once>
HttpAnswer with_retries(Transfer& t, const HttpOptions& options, Once&& once) {
  for (int attempt = 0;; ++attempt) {
    t.answer = {};
    const std::string problem = once();
    if (problem.empty() && !is_transient(t.answer.status)) return std::move(t.answer);
    const std::string cause =
        problem.empty() ? "HTTP status " + std::to_string(t.answer.status) : problem;
    if (attempt + 1 >= options.attempts)
      fail(ErrorKind::kIo, kWhere, t.url, ": ", cause, " (", attempt + 1, " attempts)");
    const int64_t wait = wait_ms(t.answer, options, attempt);
    log_warn(t.url + ": " + cause + "; again in " + std::to_string((wait + 500) / 1000) + " s");
    std::this_thread::sleep_for(std::chrono::milliseconds(wait));
  }
}

}  // namespace

HttpAnswer http_get(const std::string& url, const HttpOptions& options, int64_t max_body) {
  Transfer t;
  t.url = url;
  t.max_body = max_body;
  return with_retries(t, options, [&] { return perform(t, options, false); });
}

HttpAnswer http_head(const std::string& url, const HttpOptions& options) {
  Transfer t;
  t.url = url;
  return with_retries(t, options, [&] { return perform(t, options, true); });
}

HttpAnswer http_download(const std::string& url, const std::filesystem::path& path, int64_t size,
                         const HttpOptions& options, const std::function<void(int64_t)>& progress) {
  Transfer t;
  t.url = url;
  t.path = path;
  t.size = size;
  t.progress = &progress;
  t.file = FileDescriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!t.file.is_open()) fail_io(kWhere, "create", path, errno);
  HttpAnswer answer = with_retries(t, options, [&]() -> std::string {
    t.offset = size_of_file(kWhere, t.file, path);
    if (size >= 0 && t.offset > size) {
      if (ftruncate(t.file.get(), 0) != 0) fail_io(kWhere, "truncate", path, errno);
      t.offset = 0;
    }
    if (size >= 0 && t.offset == size) {
      t.answer.status = 200;
      return "";
    }
    t.started = false;
    const std::string problem = perform(t, options, false);
    if (problem.empty() && t.answer.status < 300 && size >= 0 && t.offset != size)
      return "ended after " + std::to_string(t.offset) + " of " + std::to_string(size) + " bytes";
    return problem;
  });
  if (answer.status == 200 || answer.status == 206) sync_file(kWhere, t.file, path);
  return answer;
}

}  // namespace signround
