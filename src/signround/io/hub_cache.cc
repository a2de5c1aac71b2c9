#include "signround/io/hub_cache.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/io/atomic_file.h"
#include "signround/io/file.h"
#include "signround/io/http.h"
#include "signround/io/lock_file.h"
#include "signround/io/mapped_file.h"

namespace signround::hub {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWhere = "hub";

bool is_word(std::string_view text) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !text.empty() && text.size() <= 96 &&
         text.find_first_not_of(kLetters) == std::string_view::npos && text.front() != '-' &&
         text.front() != '.' && text.back() != '-' && text.back() != '.' &&
         text.find("..") == std::string_view::npos && text.find("--") == std::string_view::npos;
}

// Parts of a path or of a revision; none may step up or be absolute.
bool stays_inside(std::string_view path) {
  if (path.empty() || path.size() > 1024 || path.find('\\') != std::string_view::npos ||
      path.find('\0') != std::string_view::npos)
    return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

bool is_hex(std::string_view text, size_t size) {
  return text.size() == size &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Everything but letters, digits and -._~/ as %XX.
std::string url_path(const std::string& path) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string out;
  for (char c : path) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += '%';
      out += "0123456789ABCDEF"[static_cast<uint8_t>(c) >> 4];
      out += "0123456789ABCDEF"[static_cast<uint8_t>(c) & 15];
    }
  }
  return out;
}

std::string megabytes(int64_t bytes) {
  return std::to_string((bytes + 500'000) / 1'000'000) + " MB";
}

RemoteFile read_sibling(const nlohmann::json& sibling, const std::string& name) {
  RemoteFile file;
  file.path = sibling.at("rfilename").get<std::string>();
  if (!stays_inside(file.path))
    fail(ErrorKind::kCorruptFile, kWhere, name, ": the endpoint lists a file '", file.path,
         "', which is no safe name");
  if (const auto size = sibling.find("size"); size != sibling.end() && size->is_number_integer())
    file.size = *size;
  if (const auto lfs = sibling.find("lfs"); lfs != sibling.end() && lfs->is_object()) {
    file.blob = lfs->value("sha256", lfs->value("oid", ""));
    if (lfs->contains("size")) file.size = lfs->at("size").get<int64_t>();
  } else {
    file.blob = sibling.value("blobId", "");
  }
  if (!is_hex(file.blob, 64) && !is_hex(file.blob, 40)) file.blob.clear();
  return file;
}

Listing read_listing(const std::string& body, const std::string& name) {
  Listing listing;
  try {
    const auto json = nlohmann::json::parse(body);
    listing.commit = json.at("sha").get<std::string>();
    for (const auto& sibling : json.at("siblings"))
      listing.files.push_back(read_sibling(sibling, name));
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kCorruptFile, kWhere, name,
         ": the endpoint's list of files cannot be read: ", excerpt(error.what(), 300));
  }
  if (!is_hex(listing.commit, 40))
    fail(ErrorKind::kCorruptFile, kWhere, name, ": the endpoint names a commit '", listing.commit,
         "'");
  std::sort(listing.files.begin(), listing.files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.path < b.path; });
  return listing;
}

bool has_files(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder, ignored) && !fs::is_empty(folder, ignored);
}

// Waits as long as another process downloads the same file.
LockFile wait_for_lock(const fs::path& path) {
  for (bool told = false;; told = true) {
    try {
      return LockFile(path);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kBusy) throw;
      if (!told) log_info("waiting for another download of the same file (" + path.string() + ")");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
}

bool has_content(const fs::path& path, const std::string& blob) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  return (blob.size() == 64 ? sha256_hex(bytes) : git_blob_hex(bytes)) == blob;
}

// A link into blobs/, relative so that the cache can be moved; a copy where the file system has no
// links.
void link_or_copy(const fs::path& blob, const fs::path& link) {
  std::error_code problem;
  if (fs::exists(link, problem)) return;
  fs::create_directories(link.parent_path());
  fs::remove(link, problem);  // a link that leads nowhere
  fs::create_symlink(fs::relative(blob, link.parent_path()), link, problem);
  if (!problem || fs::exists(link)) return;
  fs::copy_file(blob, link, problem);
  if (problem)
    fail(ErrorKind::kIo, kWhere, "cannot make ", link.string(), " of ", blob.string(), ": ",
         problem.message());
}

}  // namespace

Id parse_id(const std::string& text) {
  Id id;
  const size_t at = text.find('@');
  id.name = text.substr(0, at);
  if (at != std::string::npos) id.revision = text.substr(at + 1);
  const size_t slash = id.name.find('/');
  const bool is_id =
      slash != std::string::npos && is_word(std::string_view(id.name).substr(0, slash)) &&
      is_word(std::string_view(id.name).substr(slash + 1)) && stays_inside(id.revision);
  require(is_id, kWhere, "'", text,
          "' is no name on the Hub, expected org/name or org/name@revision");
  return id;
}

const RemoteFile* find(const Listing& listing, const std::string& path) {
  for (const RemoteFile& file : listing.files)
    if (file.path == path) return &file;
  return nullptr;
}

Repository::Repository(Kind kind, const std::string& id, HubOptions options)
    : kind_(kind), id_(parse_id(id)), options_(std::move(options)) {
  std::string folder = kind == Kind::kModel ? "models--" : "datasets--";
  for (char c : id_.name) c == '/' ? folder += "--" : folder += c;
  folder_ = options_.cache / folder;
}

std::string Repository::url(const std::string& kind_of_page, const std::string& rest) const {
  const std::string kind = kind_ == Kind::kModel ? "models/" : "datasets/";
  const std::string place = kind_of_page == "api"   ? "/api/" + kind
                            : kind_ == Kind::kModel ? "/"
                                                    : "/datasets/";
  return options_.endpoint + place + id_.name + "/" + rest;
}

fs::path Repository::cached_snapshot() const {
  std::string commit = id_.revision;
  const fs::path ref = folder_ / "refs" / id_.revision;
  std::error_code ignored;
  if (fs::is_regular_file(ref, ignored)) {
    commit = read_text_file(kWhere, ref, 200);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
  }
  if (!is_hex(commit, 40) || !has_files(snapshot_folder(commit))) return "";
  return snapshot_folder(commit);
}

void Repository::fail_status(int status, const std::string& what,
                             const std::string& message) const {
  const std::string asked = "'" + (what.empty() ? id_.name : what + "' of '" + id_.name) +
                            "' at revision '" + id_.revision + "'";
  const std::string said = message.empty() ? "" : " (it says: " + message + ")";
  if (status == 401 || status == 403)
    fail(ErrorKind::kInvalidArgument, kWhere, options_.endpoint, " denies ", asked, " with status ",
         status, said,
         ": the name may be wrong, or the repository is private or asks to accept its terms on ",
         options_.endpoint, "/", id_.name, "; then set HF_TOKEN",
         options_.token.empty() ? " (none is set)" : " to a token that may read it");
  if (status == 404)
    fail(ErrorKind::kInvalidArgument, kWhere, options_.endpoint, " has no ", asked, said);
  fail(ErrorKind::kIo, kWhere, options_.endpoint, " answers ", asked, " with status ", status,
       said);
}

namespace {

HttpOptions http_options(const HubOptions& options) {
  HttpOptions http;
  http.attempts = options.attempts;
  http.first_delay_ms = options.first_delay_ms;
  if (!options.token.empty()) http.headers.push_back("Authorization: Bearer " + options.token);
  return http;
}

}  // namespace

std::optional<Listing> Repository::list() {
  const fs::path cached = cached_snapshot();
  if (options_.offline) {
    if (!cached.empty()) return std::nullopt;
    fail(ErrorKind::kIo, kWhere, "'", id_.name, "' at revision '", id_.revision,
         "' is not in the cache ", options_.cache.string(), ", and HF_HUB_OFFLINE forbids to ask ",
         options_.endpoint, "; unset it, or give a local folder");
  }
  HttpOptions http = http_options(options_);
  http.attempts = std::min(http.attempts, 3);  // without a network the cache should answer soon
  try {
    const HttpAnswer answer =
        http_get(url("api", "revision/" + url_path(id_.revision) + "?blobs=true"), http);
    if (answer.status == 200) return read_listing(answer.body, id_.name);
    const auto message = answer.headers.find("x-error-message");
    fail_status(answer.status, "", message == answer.headers.end() ? "" : message->second);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kIo) throw;
    if (cached.empty())
      fail(
          ErrorKind::kIo, kWhere, "'", id_.name, "' is not in the cache ", options_.cache.string(),
          ", and ", options_.endpoint, " cannot be asked: ", error.what(),
          "; check the network and the proxy, set HF_ENDPOINT to a mirror, or give a local folder");
    log_warn(options_.endpoint + " cannot be asked for '" + id_.name +
             "', the cache's copy is used: " + error.what());
    return std::nullopt;
  }
}

// Size and hash where the list did not give them (mirrors): a HEAD request does.
RemoteFile Repository::announced(const Listing& listing, const RemoteFile& file) const {
  RemoteFile out = file;
  if (!file.blob.empty() && file.size >= 0) return out;
  const HttpAnswer answer = http_head(
      url("page", "resolve/" + listing.commit + "/" + url_path(file.path)), http_options(options_));
  if (answer.status != 200) fail_status(answer.status, file.path, excerpt(answer.body, 200));
  const auto header = [&](const char* linked, const char* plain) {
    auto it = answer.headers.find(linked);
    if (it == answer.headers.end()) it = answer.headers.find(plain);
    return it == answer.headers.end() ? std::string() : it->second;
  };
  std::string tag = header("x-linked-etag", "etag");
  if (tag.starts_with("W/")) tag.erase(0, 2);
  std::erase(tag, '"');
  const std::string size = header("x-linked-size", "content-length");
  if (!size.empty() && size.size() < 18 &&
      size.find_first_not_of("0123456789") == std::string::npos)
    out.size = std::stoll(size);
  out.blob = tag;
  if (!is_hex(tag, 64) && !is_hex(tag, 40))
    fail(ErrorKind::kUnsupported, kWhere, options_.endpoint, " gives '", file.path, "' of '",
         id_.name, "' the tag '", tag, "', expected a sha256 or a git hash");
  return out;
}

void Repository::download_blob(const Listing& listing, const RemoteFile& file,
                               const fs::path& blob) const {
  const fs::path partial = blob.string() + ".incomplete";
  std::error_code ignored;
  if (file.size > 0) {
    const fs::space_info space = fs::space(options_.cache, ignored);
    const auto there =
        fs::exists(partial, ignored) ? static_cast<int64_t>(fs::file_size(partial, ignored)) : 0;
    if (!ignored && file.size > there && static_cast<uint64_t>(file.size - there) > space.available)
      fail(ErrorKind::kIo, kWhere, "'", file.path, "' needs ", megabytes(file.size - there),
           " more in ", options_.cache.string(), ", which has ",
           megabytes(static_cast<int64_t>(space.available)), " free");
  }
  auto last = std::chrono::steady_clock::now();
  const auto progress = [&](int64_t bytes) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::seconds(2)) return;
    last = now;
    log_status("download " + file.path + ": " + megabytes(bytes) +
               (file.size > 0 ? " of " + megabytes(file.size) : ""));
  };
  // The first attempt may go on from bytes that were damaged; then the second starts anew.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (file.size < 0) fs::remove(partial, ignored);  // what is missing cannot be told
    const HttpAnswer answer =
        http_download(url("page", "resolve/" + listing.commit + "/" + url_path(file.path)), partial,
                      file.size, http_options(options_), progress);
    if (answer.status != 200 && answer.status != 206) {
      fs::remove(partial, ignored);
      fail_status(answer.status, file.path, excerpt(answer.body, 200));
    }
    if (has_content(partial, file.blob)) return fs::rename(partial, blob);
    fs::remove(partial, ignored);
  }
  fail(ErrorKind::kIo, kWhere, "'", file.path, "' of '", id_.name,
       "' does not have the content that ", options_.endpoint, " announced (", file.blob, ")");
}

fs::path Repository::fetch(const Listing& listing, const RemoteFile& listed) {
  const fs::path link = snapshot_folder(listing.commit) / listed.path;
  std::error_code ignored;
  if (fs::exists(link, ignored)) return link;
  const RemoteFile file = announced(listing, listed);
  const fs::path blob = folder_ / "blobs" / file.blob;
  fs::create_directories(blob.parent_path());
  const LockFile lock = wait_for_lock(lock_path(file.blob));
  if (!fs::exists(blob, ignored)) download_blob(listing, file, blob);
  link_or_copy(blob, link);
  return link;
}

fs::path Repository::lock_path(const std::string& name) const {
  const fs::path locks = options_.cache / ".locks" / folder_.filename();
  fs::create_directories(locks);
  return locks / (name + ".lock");
}

void Repository::write_ref(const std::string& commit) const {
  if (id_.revision == commit) return;
  const fs::path ref = folder_ / "refs" / id_.revision;
  fs::create_directories(ref.parent_path());
  const LockFile lock = wait_for_lock(lock_path("refs"));
  write_file_atomically(ref, commit);
}

}  // namespace signround::hub
