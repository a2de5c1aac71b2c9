// HTTP by libcurl: small answers into memory, large files to disk with resume, both with retries.
// Proxies are those of curl (http_proxy, https_proxy, all_proxy, no_proxy).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace signround {

// What is tried again: no connection, a connection that breaks or stalls, and the answers 408, 429
// and 5xx. The wait doubles from first_delay_ms, or is what the server asks for in Retry-After, up
// to 60 s.
struct HttpOptions {
  std::vector<std::string>
      headers;  // "Name: value"; Authorization does not follow a redirect to another host
  int attempts = 6;
  int64_t first_delay_ms = 1000;
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string>
      headers;  // names in lower case; x-linked-* also from in front of a redirect
  std::string body;
};

// The answer after redirects, also where its status is an error that is not tried again. Error{kIo}
// with the URL, the cause and the number of attempts where there is none. A body above max_body is
// kCorruptFile.
HttpAnswer http_get(const std::string& url, const HttpOptions& options,
                    int64_t max_body = int64_t{64} << 20);
HttpAnswer http_head(const std::string& url, const HttpOptions& options);

// Downloads to `path`, which may hold the first part of the file already: the rest is asked for
// (Range), and where the server sends everything instead, the file starts anew. `size`: what the
// whole file must have, -1 if not known. `progress` gets the bytes that are there. The answer's
// body holds the first bytes of an error's text, else nothing. What arrived stays on disk when the
// connection fails for good, for the next attempt to go on from.
HttpAnswer http_download(const std::string& url, const std::filesystem::path& path, int64_t size,
                         const HttpOptions& options, const std::function<void(int64_t)>& progress);

}  // namespace signround
