#include "signround/text/gguf_pre_tokenizer.h"

#include <algorithm>
#include <array>

namespace signround {
namespace {

// The published expressions of these tokenizers (their tokenizer.json or tokenization code); they
// are part of what their vocabularies mean. Names and flags: llama.cpp, src/llama-vocab.cpp of
// October 2026.
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS R"([^\r\n\p{L}\p{N}]?\p{L}+)"
#define SYMBOLS R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)"
#define SYMBOLS_AND_SLASH R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)"
#define SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define CASED_WORDS(ending)                                                                   \
  R"([^\r\n\p{L}\p{N}]?)" UPPER "*" LOWER "+" ending R"(|[^\r\n\p{L}\p{N}]?)" UPPER "+" LOWER \
  "*" ending
#define ASCII_PUNCTUATION_WORD R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
#define WORDS_WITH_MARKS R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
#define CHINESE_AND_KANA R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)"
#define NOT_HAN_UPPER R"((?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]))"
#define NOT_HAN_LOWER R"((?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}]))"
#define GPT2 R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"

constexpr const char* kLlama3[] = {CONTRACTIONS "|" LETTERS R"(|\p{N}{1,3})" SYMBOLS SPACES};
constexpr const char* kQwen2[] = {CONTRACTIONS "|" LETTERS R"(|\p{N})" SYMBOLS SPACES};
constexpr const char* kQwen35[] = {CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
                                                R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" SPACES};
constexpr const char* kUfakzeka[] = {LETTERS R"(|\p{N})" SYMBOLS SPACES};
constexpr const char* kLaguna[] = {R"([^\n]+|\n+)", kQwen2[0]};
constexpr const char* kSeedCoder[] = {CONTRACTIONS "|" LETTERS
                                                   R"(|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+)" SPACES};
constexpr const char* kBailing[] = {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})"
                                    R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"};
constexpr const char* kExaoneMoe[] = {
    CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N})"
                 R"(| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"};
constexpr const char* kJais2[] = {
    CONTRACTIONS "|" LETTERS R"(|\p{N}{1,3})" SYMBOLS
                 R"(|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S))"
                 R"(|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})"};
constexpr const char* kTekken[] = {CASED_WORDS("") R"(|\p{N})" SYMBOLS_AND_SLASH SPACES};
constexpr const char* kGpt4o[] = {
    CASED_WORDS(CONTRACTIONS "?") R"(|\p{N}{1,3})" SYMBOLS_AND_SLASH SPACES};
constexpr const char* kTinyAya[] = {R"(\d{1,3}(?=(?:\d{3})*\b))", kGpt4o[0]};
constexpr const char* kYoutu[] = {
    R"([\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+)"
    R"(|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C})"
    R"(\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|)" CHINESE_AND_KANA,
    CASED_WORDS(CONTRACTIONS "?") R"(|\p{N})" SYMBOLS_AND_SLASH SPACES};
constexpr const char* kKimi[] = {R"(\p{Han}+|[^\r\n\p{L}\p{N}]?)" NOT_HAN_UPPER "*" NOT_HAN_LOWER
                                 "+" CONTRACTIONS R"(?|[^\r\n\p{L}\p{N}]?)" NOT_HAN_UPPER
                                 "+" NOT_HAN_LOWER "*" CONTRACTIONS
                                 R"(?|\p{N}{1,3})" SYMBOLS SPACES};
constexpr const char* kDeepseek3[] = {R"(\p{N}{1,3})", CHINESE_AND_KANA,
                                      ASCII_PUNCTUATION_WORD WORDS_WITH_MARKS
                                      R"(| ?[\p{P}\p{S}]+[\r\n]*)" SPACES};
constexpr const char* kSpark[] = {
    R"(\p{N}{1,3})", CHINESE_AND_KANA,
    ASCII_PUNCTUATION_WORD WORDS_WITH_MARKS R"(| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)", R"(\p{N})"};
constexpr const char* kAfmoe[] = {
    R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))",
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF})"
    R"(\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF})"
    R"(\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+)",
    kDeepseek3[2]};
constexpr const char* kDeepseekCoder[] = {
    R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
    R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"};
// The second one: letters with case, as code points, since some of them are not in composed form.
constexpr const char* kDeepseekLlm[] = {
    R"([\r\n])",
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A})"
    R"(\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556})"
    R"(\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF})"
    R"(\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})"
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D})"
    R"(\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3})"
    R"(\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D})"
    R"(\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})"
    R"(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF})"
    R"(\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)",
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)",
    R"(\s+$)",
    R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)",
    R"(\p{N}+)"};
constexpr const char* kBloom[] = {
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{0964}\x{06D4}\x{060C})]+)"};
constexpr const char* kViking[] = {kBloom[0], R"(\p{N})"};
constexpr const char* kFalcon[] = {R"([\p{P}\$\+<=>\^~\|`]+)", GPT2, R"([0-9][0-9][0-9])"};
constexpr const char* kChameleon[] = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                                      R"([\t\n]|    |  )", R"(\p{N})", R"([\p{P}!-/:-@\[-`{-~])"};
constexpr const char* kMinicpm5[] = {R"(\p{N}{1,3})",
                                     CONTRACTIONS "|" LETTERS R"(|\p{N}+)" SYMBOLS SPACES};
constexpr const char* kLines[] = {R"([^\n]+|\n+)"};
constexpr const char* kWhitespace[] = {R"(\S+)"};
constexpr const char* kSuperBpe[] = {R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"};
// What llama.cpp does with byte-level vocabularies of which it knows nothing more.
constexpr const char* kDefault[] = {R"([\p{P}\$\+<=>\^~\|]+)", GPT2, R"(\p{N}+)",
                                    R"([0-9][0-9][0-9])"};
constexpr std::span<const char* const> kNone;

constexpr GgufPreTokenizer gpt2(std::string_view name) {
  return {.name = name, .patterns = kNone, .gpt2 = true};
}
constexpr GgufPreTokenizer digits(std::string_view name) {
  return {.name = name, .patterns = kNone, .digits_alone = true, .gpt2 = true};
}
constexpr GgufPreTokenizer split(std::string_view name, std::span<const char* const> patterns) {
  return {.name = name, .patterns = patterns};
}
constexpr GgufPreTokenizer whole(std::string_view name, std::span<const char* const> patterns,
                                 bool bos) {
  return {.name = name, .patterns = patterns, .ignore_merges = true, .add_bos = bos};
}
// SentencePiece's way of writing, without its space in front.
constexpr GgufPreTokenizer lines(std::string_view name, bool gemma) {
  return {.name = name,
          .patterns = kLines,
          .plain = true,
          .visible_spaces = true,
          .newline_runs = gemma,
          .always_bos = gemma};
}

constexpr GgufPreTokenizer kKnown[] = {
    gpt2("gpt-2"),
    gpt2("phi-2"),
    gpt2("mpt"),
    gpt2("olmo"),
    gpt2("jais"),
    gpt2("trillion"),
    gpt2("granite-docling"),
    gpt2("exaone4"),
    gpt2("gigachat"),
    gpt2("a.x-4.0"),
    gpt2("mellum"),
    gpt2("modern-bert"),
    gpt2("jina-es"),
    gpt2("jina-de"),
    gpt2("jina-v1-en"),
    gpt2("roberta-bpe"),
    {.name = "jina-v2-es", .patterns = kNone, .gpt2 = true, .mask_strips = true},
    {.name = "jina-v2-de", .patterns = kNone, .gpt2 = true, .mask_strips = true},
    {.name = "jina-v2-code", .patterns = kNone, .gpt2 = true, .mask_strips = true},
    digits("smollm"),
    digits("starcoder"),
    digits("refact"),
    digits("command-r"),
    digits("codeshell"),
    digits("exaone"),
    digits("minerva-7b"),
    digits("mellum2"),
    whole("llama3", kLlama3, true),
    whole("llama-v3", kLlama3, true),
    whole("llama-bpe", kLlama3, true),
    whole("falcon3", kLlama3, true),
    whole("falcon-h1", kLlama3, true),
    whole("pixtral", kLlama3, true),
    whole("midm-2.0", kLlama3, true),
    whole("lfm2", kLlama3, true),
    whole("jina-v5-nano", kLlama3, true),
    split("smaug-bpe", kLlama3),
    split("dbrx", kLlama3),
    split("glm4", kLlama3),
    split("chatglm-bpe", kLlama3),
    {.name = "qwen2", .patterns = kQwen2, .nfc = true},
    {.name = "qwen35", .patterns = kQwen35, .nfc = true},
    split("deepseek-r1-qwen", kQwen2),
    split("kormo", kQwen2),
    split("f2llmv2", kQwen2),
    split("megrez", kQwen2),
    split("stablelm2", kQwen2),
    split("hunyuan", kQwen2),
    split("grok-2", kQwen2),
    split("solar-open", kQwen2),
    split("ufakzeka", kUfakzeka),
    split("laguna", kLaguna),
    split("seed-coder", kSeedCoder),
    split("bailingmoe", kBailing),
    split("bailingmoe2", kBailing),
    split("llada-moe", kBailing),
    split("exaone-moe", kExaoneMoe),
    split("jais-2", kJais2),
    whole("tekken", kTekken, true),
    split("gpt-4o", kGpt4o),
    split("llama4", kGpt4o),
    split("kanana2", kGpt4o),
    split("talkie", kGpt4o),
    split("minimax-m2", kGpt4o),
    whole("granite-embed-multi-97m", kGpt4o, false),
    split("tiny_aya", kTinyAya),
    split("cohere2moe", kTinyAya),
    whole("youtu", kYoutu, false),
    split("kimi-k2", kKimi),
    split("deepseek-llm", kDeepseekLlm),
    split("deepseek-coder", kDeepseekCoder),
    split("deepseek-v3", kDeepseek3),
    split("hunyuan-dense", kDeepseek3),
    split("joyai-llm", kDeepseek3),
    split("hy_v4", kDeepseek3),
    split("spark2_5", kSpark),
    split("afmoe", kAfmoe),
    split("poro-chat", kBloom),
    split("bloom", kBloom),
    split("gpt3-finnish", kBloom),
    split("viking", kViking),
    split("falcon", kFalcon),
    {.name = "chameleon", .patterns = kChameleon, .gpt2 = true, .add_bos = true},
    whole("minicpm5", kMinicpm5, false),
    split("superbpe", kSuperBpe),
    lines("gemma4", true),
    lines("granite-embed-multi-311m", true),
    lines("sarvam-moe", false),
    {.name = "whitespace", .patterns = kWhitespace, .plain = true},
    split("default", kDefault),
};

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() { return kKnown; }

const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kKnown), std::end(kKnown),
                   [&](const GgufPreTokenizer& known) { return known.name == name; });
  return found == std::end(kKnown) ? nullptr : found;
}

std::string gguf_pre_tokenizer_names() {
  std::string names;
  for (const GgufPreTokenizer& known : kKnown)
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

}  // namespace signround
