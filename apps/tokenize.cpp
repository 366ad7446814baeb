// ratplus tokenize: text to token numbers, and back.
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/utf8.h"
#include "data/tokenizer/token_numbers.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/generate/tokenizer_of.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* tokenize_help = R"(usage: ratplus tokenize TOKENIZER [TEXT...] [options]

Prints the token numbers of a text, without begin or end tokens, or with --decode the text of token numbers. TOKENIZER is
a tokenizer's file (tokenizer.model, tokenizer.json), a dataset's directory, or a checkpoint or a run, of which the
dataset's tokenizer is taken. Each TEXT, and each file, gives one line of numbers; without either, standard input is one
text, its line ends included. With --decode all numbers together give one text, written as it is: without a line end but
its own, save to a terminal. A number that is no token's is an error. Where decoding gives another text than was
encoded, as a tokenizer that changes blanks does, a warning says so.

)";

constexpr const char* tokenize_help_end = R"(
examples:
  ratplus tokenize data/books "Once upon a time"
  ratplus tokenize tokenizer.model --file page.txt | ratplus tokenize tokenizer.model --decode
  ratplus tokenize runs/quickstart/pretrain --decode 318 262 11
)";

std::string standard_input() {
  std::string all;
  std::string part(std::size_t{1} << 16, '\0');
  while (const std::size_t got = std::fread(part.data(), 1, part.size(), stdin)) all.append(part, 0, got);
  if (std::ferror(stdin) != 0) fail("cannot read standard input: {}", std::strerror(errno));
  return all;
}

void write_result(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail("cannot write to standard output: {}", std::strerror(errno));
}

void warn(const std::string& text) {
  fmt::print(stderr, "ratplus: warning: {}\n", text);
}

void encode(const data::Tokenizer& tokenizer, std::string text) {
  if (const auto repaired = repair_utf8(text); repaired > 0)
    warn("ill-formed UTF-8 in the text became U+FFFD");
  std::vector<std::int32_t> tokens;
  tokenizer.encode(text, tokens);
  write_result(data::to_text(tokens) + "\n");
  if (tokenizer.decode(tokens) != text)
    warn("the tokenizer changes this text: its tokens decode to another one");
}

void decode(const data::Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::string numbers;
  for (const std::string& text : texts) numbers += text + "\n";
  write_result(tokenizer.decode(data::parse_tokens(numbers, tokenizer.vocab_size())));
  if (::isatty(STDOUT_FILENO) == 1) write_result("\n");
}

}  // namespace

int tokenize_command(const Arguments& args) {
  std::vector<std::string> given;
  std::vector<std::string> files;
  bool decoding = false;
  po::options_description options("options");
  auto add = options.add_options();
  add("decode", po::bool_switch(&decoding), "token numbers to text");
  add("file", po::value(&files)->composing()->value_name("FILE"),
      "the text, or with --decode the numbers, of a file; may be given again");
  const Positional place{"text", -1, po::value(&given), "a tokenizer is missing", "MODEL TEXT"};
  if (!parse_command_line(args, options, place, {tokenize_help, tokenize_help_end})) return 0;
  refuse_ranks("tokenize");
  const data::Tokenizer tokenizer(generate::tokenizer_of(given.front()));
  std::vector<std::string> texts(given.begin() + 1, given.end());
  for (const std::string& file : files) texts.push_back(read_whole_file(file));
  if (texts.empty()) texts.push_back(standard_input());
  if (decoding) {
    decode(tokenizer, texts);
  } else {
    for (std::string& text : texts) encode(tokenizer, std::move(text));
  }
  return 0;
}

}  // namespace ratplus::apps
