#include "signround/cli/quantize_flags.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"

namespace signround {
namespace {

struct Parsed {
  std::string model;
  QuantizeOptions options;
  std::vector<std::string> notes;
  std::string problems;
};

Parsed parse(std::vector<const char*> words) {
  Parsed parsed;
  Flags flags("test", "A test.");
  add_quantize_flags(flags, parsed.model, parsed.options, parsed.notes);
  flags.parse(static_cast<int>(words.size()), words.data());
  check_quantize_flags(flags, parsed.options);
  try {
    flags.check();
  } catch (const Error& error) {
    parsed.problems = error.what();
  }
  return parsed;
}

TEST(QuantizeFlags, AutoRoundsCommandLineMeansTheSame) {
  const Parsed p = parse({"--model_name_or_path",
                          "m",
                          "--output_dir",
                          "o",
                          "--formats",
                          "auto_round:auto_gptq,auto_gptq",
                          "--bs",
                          "2",
                          "--nsample",
                          "3",
                          "--seq_len",
                          "64",
                          "--dtype",
                          "int",
                          "--platform",
                          "hf",
                          "--model_dtype",
                          "bf16",
                          "--low_gpu_mem_usage",
                          "--enable_torch_compile",
                          "--disable_trust_remote_code",
                          "--target_bits",
                          "4.5",
                          "--algorithm",
                          "auto_round",
                          "--enable_deterministic_algorithms"});
  EXPECT_EQ(p.problems, "");
  EXPECT_EQ(p.model, "m");
  EXPECT_EQ(p.options.output, "o");
  EXPECT_EQ(p.options.formats, (std::vector<std::string>{"auto_round", "gptq"}));
  EXPECT_EQ(p.options.batch_size, 2);
  EXPECT_EQ(p.options.nsamples, 3);
  EXPECT_EQ(p.options.seqlen, 64);
  EXPECT_EQ(p.options.avg_bits, 4.5);
  EXPECT_EQ(p.options.method, "signround");
  EXPECT_EQ(p.notes.size(), 5u) << "each flag that changes nothing is named";
}

TEST(QuantizeFlags, AnAlgorithmIsPreparationsAndAMethod) {
  Parsed p = parse({"m", "-o", "o", "--alg", "awq,rtn"});
  EXPECT_EQ(p.problems, "");
  EXPECT_TRUE(p.options.awq);
  EXPECT_EQ(p.options.method, "opt-rtn") << "AWQ reads text, and so does the search of scales";
  p = parse({"m", "-o", "o", "--algorithm=awq,auto_round"});
  EXPECT_TRUE(p.options.awq);
  EXPECT_EQ(p.options.method, "signround");
  EXPECT_EQ(parse({"m", "-o", "o", "--alg", "rtn"}).options.method, "rtn");
  EXPECT_NE(parse({"m", "-o", "o", "--alg", "svdquant"}).problems.find("is no list of"),
            std::string::npos);
}

TEST(QuantizeFlags, NoEarlyStopIsAShareOfZero) {
  EXPECT_EQ(parse({"m", "-o", "o"}).options.early_stop, 0);
  EXPECT_EQ(parse({"m", "-o", "o", "--early-stop", "0.03"}).options.early_stop, 0.03);
  EXPECT_EQ(parse({"m", "-o", "o", "--early-stop", "0.03", "--no-early-stop"}).options.early_stop,
            0);
}

TEST(QuantizeFlags, DisableOptRtnMakesNoIterationsPlainRounding) {
  Parsed p = parse({"m", "-o", "o", "--iters", "0", "--disable_opt_rtn"});
  EXPECT_EQ(p.problems, "");
  EXPECT_EQ(p.options.effective_method(), "rtn");
  EXPECT_EQ(parse({"m", "-o", "o", "--iters", "0", "--enable_opt_rtn"}).options.effective_method(),
            "opt-rtn");
  EXPECT_EQ(parse({"m", "-o", "o", "--iters", "0"}).options.effective_method(), "opt-rtn");
  EXPECT_NE(parse({"m", "-o", "o", "--method", "opt-rtn", "--disable-opt-rtn"})
                .problems.find("contradict"),
            std::string::npos);
  EXPECT_NE(parse({"m", "-o", "o", "--iters", "0", "--disable-opt-rtn", "--awq"})
                .problems.find("--awq reads text"),
            std::string::npos);
}

TEST(QuantizeFlags, WhatHasNoMeaningHereIsAnsweredWithItsReason) {
  const Parsed p =
      parse({"m", "-o", "o", "--act_bits", "8", "--enable_alg_ext", "--tasks", "piqa", "--platform",
             "model_scope", "--data_type", "mx_fp", "--to_quant_block_names", "model.layers"});
  for (const char* part :
       {"6 problems", "--act_bits: activations are not quantized here",
        "--enable_alg_ext: this method is not offered",
        "--tasks: evaluate the result with 'signround eval", "'model_scope' is none of hf",
        "'mx_fp' is none of int", "--to_quant_block_names: use --blocks with numbers"})
    EXPECT_NE(p.problems.find(part), std::string::npos) << part << " in:\n" << p.problems;
}

TEST(QuantizeFlags, AModelIsGivenOnce) {
  EXPECT_NE(parse({"a", "--model", "b", "-o", "o"}).problems.find("beside 'a'"), std::string::npos);
  EXPECT_NE(parse({"--model", "b", "a", "-o", "o"}).problems.find("one argument too many"),
            std::string::npos);
}

TEST(QuantizeFlags, AGroupSizeOfZeroIsNoDefault) {
  EXPECT_NE(parse({"m", "-o", "o", "--group-size", "0"}).problems.find("0 is no size"),
            std::string::npos);
  EXPECT_EQ(parse({"m", "-o", "o", "--group-size", "-1"}).problems, "");
}

TEST(QuantizeFlags, HelpSpeaksOfOurFlagsOnly) {
  Parsed p;
  Flags flags("test", "A test.");
  add_quantize_flags(flags, p.model, p.options, p.notes);
  const std::string help = flags.help();
  EXPECT_NE(help.find("--disable-opt-rtn"), std::string::npos);
  EXPECT_NE(help.find("(one of full asym gptq-sym)"), std::string::npos);
  for (const char* foreign : {"low-gpu-mem", "torch-compile", "platform", "act-bits"})
    EXPECT_EQ(help.find(foreign), std::string::npos) << foreign;
}

}  // namespace
}  // namespace signround
