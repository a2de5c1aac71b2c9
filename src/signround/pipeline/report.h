// What a run did: signround.json for programs, signround.md for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/pipeline/plan.h"
#include "signround/text/calibration.h"

namespace signround {

// What tuning made of the norms and biases of a block. A change is relative: the root of the sum of
// squares of the differences over that of the values before.
struct VectorChange {
  int64_t count = 0;  // norms and biases that were tuned
  double mean = 0, largest = 0;
  std::string name;  // of the one that changed most
};

struct BlockReport {
  int64_t index = 0;
  double loss_first = 0,
         loss_best =
             0;  // mean squared error of a step's samples: at the start, and of what was kept
  double error_db = 0;  // 10 log10 (error power / signal power), see docs/glossary.md
  int best_iteration = 0;
  int restarts = 0;  // with shorter steps, see quant/tune.h
  bool stopped_early = false;
  double seconds = 0;
  int64_t rewritten_groups = 0;  // gptq_v1: turned round, since a zero point of 0 cannot be stored
  VectorChange vectors;
  nlohmann::ordered_json to_json() const;
  static BlockReport from_json(const nlohmann::ordered_json& json);
};

struct RunReport {
  nlohmann::ordered_json options, settings;
  std::vector<BlockReport> blocks;
  std::vector<std::string>
      degradations;                   // what was skipped, dropped, clamped, or fell back; counted
  std::vector<std::string> verdicts;  // what consumers will say
  std::vector<std::string> calibration;
  std::vector<std::pair<std::string, int64_t>> ledger;  // quantized, copied: tensors
  nlohmann::ordered_json timings;
  double probed_gflops = 0;  // of the probe's products in the precision of this run; 0: not probed
  nlohmann::ordered_json checksums = nlohmann::ordered_json::object();  // of each format's tensors
  nlohmann::ordered_json end_to_end;  // null: there was no such pass
  int64_t source_bytes = 0, result_bytes = 0, planned_memory = 0, peak_rss_bytes = 0;
  int64_t planned_gpu_memory = 0, peak_gpu_bytes = 0;  // 0: no GPU
  double seconds = 0;
  double bits_per_weight = 0;  // of quantized layers, scales and zero points included
  std::string plan;

  nlohmann::ordered_json to_json() const;
  std::string to_markdown() const;
};

int64_t peak_rss_bytes();  // of this process so far

}  // namespace signround
