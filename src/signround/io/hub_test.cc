#include "signround/io/hub.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/io/hub_cache.h"
#include "signround/io/lock_file.h"
#include "signround/testing/http_server.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

namespace fs = std::filesystem;
using testing::HttpRequest;
using testing::HttpResponse;
using testing::HttpServer;
using testing::read_file;
using testing::TempDir;
using testing::write_file;

const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";

// A repository "org/tiny" as the Hub serves it. `disturb` may change an answer; it sees how often
// the path was asked.
struct FakeHub {
  std::map<std::string, std::string> files;
  bool announce_blobs = true;
  std::function<void(const HttpRequest&, int, HttpResponse&)> disturb;
  std::string kind = "models";
  HttpServer server{[this](const HttpRequest& request) { return respond(request); }};

  HttpResponse respond(const HttpRequest& request) {
    HttpResponse response;
    const std::string pages =
        kind == "models" ? "/org/tiny/resolve/" : "/datasets/org/tiny/resolve/";
    if (request.path.starts_with("/api/" + kind + "/org/tiny/revision/main")) {
      response.body = listing();
    } else if (request.path.starts_with(pages + kCommit + "/")) {
      const auto it = files.find(request.path.substr(pages.size() + kCommit.size() + 1));
      if (it == files.end()) return {404, {}, "Entry not found"};
      response.headers["ETag"] = "\"" + blob_of(it->first, it->second) + "\"";
      response.body = it->second;
    } else {
      response.status = 404;
    }
    if (disturb) disturb(request, server.count(request.path), response);
    return response;
  }

  static bool is_large(const std::string& name) {
    return name.ends_with(".safetensors") || name.ends_with(".bin");
  }
  static std::string blob_of(const std::string& name, const std::string& content) {
    return is_large(name) ? sha256_hex(content) : git_blob_hex(content);
  }
  std::string listing() const {
    nlohmann::json json{
        {"id", "org/tiny"}, {"sha", kCommit}, {"siblings", nlohmann::json::array()}};
    for (const auto& [name, content] : files) {
      nlohmann::json sibling{{"rfilename", name}};
      if (announce_blobs) {
        sibling["size"] = content.size();
        sibling["blobId"] = git_blob_hex(content);
        if (is_large(name))
          sibling["lfs"] = {{"sha256", sha256_hex(content)}, {"size", content.size()}};
      }
      json["siblings"].push_back(sibling);
    }
    return json.dump();
  }
};

class Hub : public ::testing::Test {
 protected:
  Hub() {
    set_log_level(LogLevel::kQuiet);
    std::string weights(300'000, '\0');
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<char>(i * i >> 5);
    hub.files = {{"config.json", "{\"model_type\": \"llama\"}"},
                 {"tokenizer.json", "{}"},
                 {"LICENSE", "free"},
                 {"model.safetensors", weights},
                 {"pytorch_model.bin", "old weights"},
                 {"onnx/model.json", "{}"},
                 {"additional_chat_templates/tool use.jinja", "{{ x }}"}};
    options.endpoint = hub.server.url();
    options.cache = dir / "hub";
    options.first_delay_ms = 1;
  }
  ~Hub() override { set_log_level(LogLevel::kInfo); }

  void expect_error(ErrorKind kind, const std::vector<std::string>& parts) {
    try {
      hub_model_folder("org/tiny", options);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      for (const std::string& part : parts)
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
            << part << " in " << error.what();
    }
  }
  std::string page(const std::string& name) const {
    return "/org/tiny/resolve/" + kCommit + "/" + name;
  }

  TempDir dir;
  FakeHub hub;
  HubOptions options;
};

TEST_F(Hub, FillsTheStandardCacheWithWhatAModelNeeds) {
  const fs::path folder = hub_model_folder("org/tiny", options);
  EXPECT_EQ(folder, dir.path() / "hub/models--org--tiny/snapshots" / kCommit);
  for (const char* name : {"config.json", "tokenizer.json", "LICENSE", "model.safetensors",
                           "additional_chat_templates/tool use.jinja"})
    EXPECT_EQ(read_file(folder / name), hub.files[name]) << name;
  EXPECT_FALSE(fs::exists(folder / "pytorch_model.bin"));
  EXPECT_FALSE(fs::exists(folder / "onnx"));
  EXPECT_EQ(read_file(dir / "hub/models--org--tiny/refs/main"), kCommit);
  EXPECT_EQ(fs::read_symlink(folder / "config.json"),
            fs::path("../../blobs") / git_blob_hex(hub.files["config.json"]));
  EXPECT_EQ(fs::read_symlink(folder / "model.safetensors"),
            fs::path("../../blobs") / sha256_hex(hub.files["model.safetensors"]));
  EXPECT_TRUE(fs::is_empty(dir / "hub/.locks/models--org--tiny"));

  const size_t asked = hub.server.requests().size();
  EXPECT_EQ(hub_model_folder("org/tiny", options), folder);
  EXPECT_EQ(hub.server.requests().size(), asked + 1);  // the list of files only
}

TEST_F(Hub, AnIndexDecidesWhichShardsAreLoaded) {
  hub.files["model-1.safetensors"] = "first";
  hub.files["model-2.safetensors"] = "second";
  hub.files["consolidated.safetensors"] = "the same again";
  hub.files["model.safetensors.index.json"] =
      R"({"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}})";
  const fs::path folder = hub_model_folder("org/tiny", options);
  EXPECT_EQ(read_file(folder / "model-2.safetensors"), "second");
  EXPECT_FALSE(fs::exists(folder / "consolidated.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "model.safetensors"));
}

TEST_F(Hub, AnIndexThatNamesAMissingShardIsRefused) {
  hub.files["model.safetensors.index.json"] = R"({"weight_map": {"a": "model-9.safetensors"}})";
  expect_error(ErrorKind::kCorruptFile, {"model-9.safetensors", "org/tiny"});
}

TEST_F(Hub, ADownloadThatBreaksGoesOnWhereItStopped) {
  hub.disturb = [&](const HttpRequest& request, int asked, HttpResponse& response) {
    if (request.path == page("model.safetensors") && asked < 3) response.break_after = 100'000;
  };
  const fs::path folder = hub_model_folder("org/tiny", options);
  EXPECT_EQ(read_file(folder / "model.safetensors"), hub.files["model.safetensors"]);
  std::vector<std::string> ranges;
  for (const HttpRequest& request : hub.server.requests()) {
    if (request.path != page("model.safetensors")) continue;
    ranges.push_back(request.headers.contains("range") ? request.headers.at("range") : "all");
  }
  EXPECT_EQ(ranges, (std::vector<std::string>{"all", "bytes=100000-", "bytes=200000-"}));
}

TEST_F(Hub, AServerWithoutRangesStartsTheFileAnew) {
  hub.disturb = [&](const HttpRequest& request, int asked, HttpResponse& response) {
    response.honours_range = false;
    if (request.path == page("model.safetensors") && asked < 2) response.break_after = 100'000;
  };
  EXPECT_EQ(read_file(hub_model_folder("org/tiny", options) / "model.safetensors"),
            hub.files["model.safetensors"]);
}

TEST_F(Hub, WhatArrivedStaysForTheNextRun) {
  hub.disturb = [&](const HttpRequest& request, int, HttpResponse& response) {
    if (request.path == page("model.safetensors") && !request.headers.contains("range"))
      response.break_after = 100'000;
    if (request.path == page("model.safetensors") && request.headers.contains("range"))
      response.status = 500;
  };
  options.attempts = 2;
  expect_error(ErrorKind::kIo, {"model.safetensors", "500", "2 attempts"});
  EXPECT_FALSE(fs::exists(dir / "hub/models--org--tiny/refs/main"));
  hub.disturb = nullptr;
  EXPECT_EQ(read_file(hub_model_folder("org/tiny", options) / "model.safetensors"),
            hub.files["model.safetensors"]);
  EXPECT_EQ(hub.server.requests().back().headers.at("range"), "bytes=100000-");
}

TEST_F(Hub, BusyAndFailingServersAreAskedAgain) {
  hub.disturb = [&](const HttpRequest&, int asked, HttpResponse& response) {
    if (asked == 1) response = {429, {{"Retry-After", "0"}}, "slow down"};
    if (asked == 2) response = {503, {}, ""};
  };
  EXPECT_EQ(read_file(hub_model_folder("org/tiny", options) / "config.json"),
            hub.files["config.json"]);
}

TEST_F(Hub, DamagedBytesAreFetchedAgainAndThenRefused) {
  hub.disturb = [&](const HttpRequest& request, int asked, HttpResponse& response) {
    if (request.path == page("model.safetensors") && asked == 1) response.body[7] ^= 1;
  };
  const fs::path folder = hub_model_folder("org/tiny", options);
  EXPECT_EQ(read_file(folder / "model.safetensors"), hub.files["model.safetensors"]);
  fs::remove_all(options.cache);
  hub.disturb = [&](const HttpRequest& request, int, HttpResponse& response) {
    if (request.path == page("config.json")) response.body[0] = '[';
  };
  expect_error(ErrorKind::kIo, {"config.json", "does not have the content"});
  EXPECT_FALSE(fs::exists(folder / "config.json"));
}

TEST_F(Hub, MoreBytesThanAnnouncedAreRefused) {
  hub.disturb = [&](const HttpRequest& request, int, HttpResponse& response) {
    if (request.path == page("config.json")) response.body += std::string(1000, ' ');
  };
  expect_error(ErrorKind::kCorruptFile, {"more than was announced"});
}

TEST_F(Hub, MirrorsThatAnnounceNoHashesAreAskedForTags) {
  hub.announce_blobs = false;
  const fs::path folder = hub_model_folder("org/tiny", options);
  EXPECT_EQ(read_file(folder / "model.safetensors"), hub.files["model.safetensors"]);
  EXPECT_EQ(fs::read_symlink(folder / "LICENSE"), fs::path("../../blobs") / git_blob_hex("free"));
}

TEST_F(Hub, NamesThatLeadOutOfTheFolderAreRefused) {
  hub.files["../../evil.json"] = "x";
  expect_error(ErrorKind::kCorruptFile, {"evil.json"});
}

TEST_F(Hub, OfflineMeansTheCacheOrAClearError) {
  options.offline = true;
  expect_error(ErrorKind::kIo,
               {"org/tiny", hub.server.url(), "HF_HUB_OFFLINE", options.cache.string()});
  options.offline = false;
  const fs::path folder = hub_model_folder("org/tiny", options);
  const size_t asked = hub.server.requests().size();
  options.offline = true;
  EXPECT_EQ(hub_model_folder("org/tiny", options), folder);
  EXPECT_EQ(hub_model_folder("org/tiny@" + kCommit, options), folder);
  EXPECT_EQ(hub.server.requests().size(), asked);
}

TEST_F(Hub, WithoutANetworkTheCacheIsUsedElseTheErrorNamesTheEndpoint) {
  const fs::path folder = hub_model_folder("org/tiny", options);
  options.endpoint = "http://127.0.0.1:1";  // nobody listens there
  EXPECT_EQ(hub_model_folder("org/tiny", options), folder);
  options.cache = dir / "empty";
  expect_error(ErrorKind::kIo, {"org/tiny", "http://127.0.0.1:1", "HF_ENDPOINT", "3 attempts"});
}

TEST_F(Hub, DeniedAndUnknownNamesSayWhatToDo) {
  options.token = "hf_secret";
  hub.disturb = [](const HttpRequest&, int, HttpResponse& response) {
    response = {401, {{"X-Error-Message", "gated"}}, ""};
  };
  expect_error(ErrorKind::kInvalidArgument, {"org/tiny", "401", "gated", "HF_TOKEN"});
  EXPECT_EQ(hub.server.requests().back().headers.at("authorization"), "Bearer hf_secret");
  hub.disturb = [](const HttpRequest&, int, HttpResponse& response) { response = {404, {}, ""}; };
  expect_error(ErrorKind::kInvalidArgument, {"has no 'org/tiny'", "main"});
}

TEST_F(Hub, TheTokenDoesNotFollowARedirectToAnotherHost) {
  options.token = "hf_secret";
  HttpServer other([&](const HttpRequest&) {
    return HttpResponse{200, {}, hub.files["model.safetensors"]};
  });
  // Another port of the same machine counts as another host for curl since 7.83.
  hub.disturb = [&](const HttpRequest& request, int, HttpResponse& response) {
    if (request.path == page("model.safetensors"))
      response = {302, {{"Location", other.url() + "/blob"}}, ""};
  };
  hub_model_folder("org/tiny", options);
  ASSERT_EQ(other.count("/blob"), 1);
  EXPECT_FALSE(other.requests()[0].headers.contains("authorization"));
}

TEST_F(Hub, OneDownloadAtATimeForTheSameFile) {
  std::vector<std::thread> runs;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) {
    runs.emplace_back([&] {
      if (read_file(hub_model_folder("org/tiny", options) / "model.safetensors") ==
          hub.files["model.safetensors"])
        ++good;
    });
  }
  for (std::thread& run : runs) run.join();
  EXPECT_EQ(good, 4);
  EXPECT_EQ(hub.server.count(page("model.safetensors")), 1);
}

TEST_F(Hub, RepositoriesWithoutSafetensorsSayWhatTheyHave) {
  hub.files.erase("model.safetensors");
  expect_error(ErrorKind::kUnsupported, {"no .safetensors", "pytorch_model.bin"});
}

TEST_F(Hub, DataSetsAreTakenInOrderUntilTheLimit) {
  hub.kind = "datasets";
  hub.files = {{"README.md", "x"},
               {"data/train-0.jsonl", "\"a\"\n"},
               {"data/train-1.jsonl", "\"bb\"\n"},
               {"data/test-0.jsonl", "\"c\"\n"}};
  const auto wanted = [](std::vector<std::string> paths) {
    std::erase_if(paths,
                  [](const std::string& path) { return path.find("train") == std::string::npos; });
    return paths;
  };
  int64_t left_out = -1;
  auto files = hub_dataset_files("org/tiny", wanted, &left_out, options);
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(read_file(files[1]), "\"bb\"\n");
  EXPECT_EQ(left_out, 0);
  options.max_dataset_bytes = 6;
  files = hub_dataset_files("org/tiny", wanted, &left_out, options);
  EXPECT_EQ(files.size(), 1u);
  EXPECT_EQ(left_out, 1);
  const fs::path folder = hub_dataset_folder("org/tiny", options);
  EXPECT_EQ(folder, dir.path() / "hub/datasets--org--tiny/snapshots" / kCommit);
}

TEST(HubId, IsAnOrganisationAndANameInTheHubsAlphabet) {
  for (const char* good :
       {"Qwen/Qwen2.5-0.5B", "org/name@v1.0", "a/b", "org/name@refs/pr/3", "NeelNanda/pile-10k"})
    EXPECT_TRUE(looks_like_hub_id(good)) << good;
  for (const char* bad : {"", "gpt2", "./model", "../a/b", "/abs/path", "a/b/c", "~/model", "org/",
                          "/name", "org/na me", "org/.hidden", "org/name@", "org/name@../../x",
                          "org/a--b", "org/name/", "a:b/c"})
    EXPECT_FALSE(looks_like_hub_id(bad)) << bad;
}

class Environment : public ::testing::Test {
 protected:
  void set(const char* name, const std::string& value) {
    const char* old = std::getenv(name);
    if (!saved.contains(name)) saved[name] = old ? std::optional<std::string>(old) : std::nullopt;
    value.empty() ? unsetenv(name) : setenv(name, value.c_str(), 1);
  }
  void SetUp() override {
    for (const char* name : {"HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH",
                             "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"})
      set(name, "");
  }
  void TearDown() override {
    for (const auto& [name, value] : saved)
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  std::map<std::string, std::optional<std::string>> saved;
};

TEST_F(Environment, DecidesCacheEndpointTokenAndOffline) {
  TempDir dir;
  set("HOME", "/home/someone");
  HubOptions options = HubOptions::from_environment();
  EXPECT_EQ(options.endpoint, "https://huggingface.co");
  EXPECT_EQ(options.cache, "/home/someone/.cache/huggingface/hub");
  EXPECT_FALSE(options.offline);
  set("XDG_CACHE_HOME", "/x");
  EXPECT_EQ(HubOptions::from_environment().cache, "/x/huggingface/hub");
  set("HF_HOME", dir.path().string());
  write_file(dir / "token", "hf_file\n");
  EXPECT_EQ(HubOptions::from_environment().cache, dir.path() / "hub");
  EXPECT_EQ(HubOptions::from_environment().token, "hf_file");
  set("HF_HUB_CACHE", "/y");
  set("HF_TOKEN", "hf_env");
  set("HF_ENDPOINT", "https://mirror.example/");
  set("HF_HUB_OFFLINE", "1");
  options = HubOptions::from_environment();
  EXPECT_EQ(options.cache, "/y");
  EXPECT_EQ(options.token, "hf_env");
  EXPECT_EQ(options.endpoint, "https://mirror.example");
  EXPECT_TRUE(options.offline);
}

}  // namespace
}  // namespace signround
