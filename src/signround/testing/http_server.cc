#include "signround/testing/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace signround::testing {
namespace {

HttpRequest parse_request(const std::string& text) {
  HttpRequest request;
  std::istringstream in(text);
  std::string line;
  std::getline(in, line);
  std::string path;
  std::istringstream(line) >> request.method >> path;
  for (size_t i = 0; i < path.size(); ++i) {
    const bool is_escaped = path[i] == '%' && i + 2 < path.size();
    request.path +=
        is_escaped ? static_cast<char>(std::stoi(path.substr(i + 1, 2), nullptr, 16)) : path[i];
    if (is_escaped) i += 2;
  }
  while (std::getline(in, line) && line != "\r") {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon), value = line.substr(colon + 1);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    value.erase(0, value.find_first_not_of(' '));
    while (!value.empty() && value.back() == '\r') value.pop_back();
    request.headers[name] = value;
  }
  return request;
}

void send_all(int connection, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(connection, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<size_t>(n);
  }
}

}  // namespace

HttpServer::HttpServer(Handler handler) : handler_(std::move(handler)) {
  socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  if (socket_ < 0 || bind(socket_, raw, size) != 0 || listen(socket_, 16) != 0 ||
      getsockname(socket_, raw, &size) != 0)
    throw std::runtime_error("no port for the test server");
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

HttpServer::~HttpServer() {
  stop_ = true;
  thread_.join();
  for (std::thread& connection : connections_) connection.join();
  close(socket_);
}

std::vector<HttpRequest> HttpServer::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

int HttpServer::count(const std::string& path) const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(std::count_if(requests_.begin(), requests_.end(),
                                        [&](const HttpRequest& r) { return r.path == path; }));
}

void HttpServer::serve() {
  while (!stop_) {
    pollfd waiting{socket_, POLLIN, 0};
    if (poll(&waiting, 1, 20) <= 0) continue;
    const int connection = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) connections_.emplace_back([this, connection] { answer(connection); });
  }
}

void HttpServer::answer(int connection) {
  std::string text;
  char block[4096];
  while (text.find("\r\n\r\n") == std::string::npos) {
    const ssize_t n = recv(connection, block, sizeof(block), 0);
    if (n <= 0) break;
    text.append(block, static_cast<size_t>(n));
  }
  const HttpRequest request = parse_request(text);
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(request);
  }
  HttpResponse response = handler_(request);
  const auto range = request.headers.find("range");
  if (range != request.headers.end() && response.honours_range && response.status == 200) {
    const size_t begin = std::stoul(range->second.substr(std::string("bytes=").size()));
    const std::string whole = std::to_string(response.body.size());
    response.status = 206;
    response.headers["Content-Range"] =
        "bytes " + std::to_string(begin) + "-" + whole + "/" + whole;
    response.body.erase(0, begin);
  }
  std::string head =
      "HTTP/1.1 " + std::to_string(response.status) +
      " x\r\nConnection: close\r\nContent-Length: " + std::to_string(response.body.size()) + "\r\n";
  for (const auto& [name, value] : response.headers) head += name + ": " + value + "\r\n";
  send_all(connection, head + "\r\n");
  if (request.method != "HEAD") send_all(connection, response.body.substr(0, response.break_after));
  shutdown(connection, SHUT_RDWR);
  close(connection);
}

}  // namespace signround::testing
