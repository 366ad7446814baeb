#include "lib/evaluation/logits_dump.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "lib/checkpoint/stored_type.h"

namespace ratplus::evaluation {
namespace {

using hdf5::Dataset;
using hdf5::Element;

/// The numbers of one line.
std::vector<std::int32_t> read_line(std::string_view line, std::int64_t vocab_size,
                                    const std::string& where) {
  constexpr std::string_view between = " \t,\r";
  std::vector<std::int32_t> tokens;
  while (true) {
    const auto begin = line.find_first_not_of(between);
    if (begin == std::string_view::npos) return tokens;
    line.remove_prefix(begin);
    const auto word = line.substr(0, line.find_first_of(between));
    std::int64_t token = -1;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), token);
    if (read.ec != std::errc{} || read.ptr != word.data() + word.size() || token < 0 || token >= vocab_size)
      fail("{}: \"{}\" is no token of 0 to {}", where, word.substr(0, 40), vocab_size - 1);
    tokens.push_back(static_cast<std::int32_t>(token));
    line.remove_prefix(word.size());
  }
}

/// Logits [T, V] of a pass, as float32 on the host.
class HostLogits {
 public:
  HostLogits(Ops& ops, std::int64_t tokens, std::int64_t vocab_size)
      : ops_(ops),
        memory_(ops.device(), tokens * vocab_size * size_of(ops.compute_type())),
        logits_(memory_.data(), ops.compute_type(), {tokens, vocab_size}, ops.device()),
        values_(static_cast<std::size_t>(logits_.numel())) {}

  Tensor tensor() const { return logits_; }
  std::span<const float> download() {
    if (logits_.dtype() == DType::f32) {
      ops_.download(values_.data(), logits_);
    } else {
      std::vector<char> bytes(static_cast<std::size_t>(logits_.bytes()));
      ops_.download(bytes.data(), logits_);
      checkpoint::decode(checkpoint::StoredType::bfloat16, bytes.data(), values_);
    }
    return values_;
  }

 private:
  Ops& ops_;
  Buffer memory_;
  Tensor logits_;
  std::vector<float> values_;
};

/// -log softmax(logits)[label].
double loss_of(std::span<const float> logits, std::int32_t label) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum) - logits[static_cast<std::size_t>(label)];
}

/// The file on the root; nothing on other ranks.
class DumpFile {
 public:
  DumpFile(const std::filesystem::path& file, const TokenRows& tokens, std::int64_t vocab_size)
      : pending_(file), out_(hdf5::File::create(pending_.path(), file)), tokens_(tokens), vocab_(vocab_size) {
    out_.set_attribute("sequences", tokens.rows());
    out_.set_attribute("length", tokens.length);
    out_.set_attribute("vocab_size", vocab_size);
    auto copy =
        out_.create_dataset("tokens", Element::int32, static_cast<std::int64_t>(tokens.tokens.size()));
    copy.write<std::int32_t>(0, tokens.tokens);
  }

  void begin(std::size_t number, const model::PatternPlan& pattern) {
    auto group = out_.create_group(std::to_string(number));
    group.set_attribute("pattern", std::string_view(pattern.describe()));
    logits_ = group.create_dataset("logits", Element::float32, tokens_.rows() * tokens_.length * vocab_);
    losses_ = group.create_dataset("losses", Element::float64, tokens_.rows() * (tokens_.length - 1));
  }
  void write(std::int64_t row, std::span<const float> logits, std::span<const double> losses) {
    logits_->write(row * tokens_.length * vocab_, logits);
    losses_->write(row * (tokens_.length - 1), losses);
  }
  void commit() {
    out_.close();
    pending_.commit();
  }

 private:
  PendingFile pending_;
  hdf5::File out_;
  const TokenRows& tokens_;
  std::int64_t vocab_;
  std::optional<Dataset> logits_;
  std::optional<Dataset> losses_;
};

}  // namespace

TokenRows read_token_rows(const std::filesystem::path& file, std::int64_t vocab_size) {
  TokenRows rows;
  const std::string text = read_whole_file(file);
  std::int64_t number = 1;
  for (std::size_t begin = 0; begin < text.size(); ++number) {
    const auto end = std::min(text.find('\n', begin), text.size());
    const auto where = fmt::format("{}:{}", file.string(), number);
    const auto line = read_line(std::string_view(text).substr(begin, end - begin), vocab_size, where);
    begin = end + 1;
    if (line.empty()) continue;
    const auto length = static_cast<std::int64_t>(line.size());
    if (rows.length == 0) rows.length = length;
    if (length != rows.length)
      fail("{}: {} where the lines before have {}; all need the same", where, counted(length, "token"),
           rows.length);
    rows.tokens.insert(rows.tokens.end(), line.begin(), line.end());
  }
  if (rows.length < 2) {
    fail("{}: give sequences of at least 2 token numbers, one sequence a line", file.string());
  }
  return rows;
}

void dump_logits(session::Session& session, const TokenRows& tokens,
                 const std::vector<model::PatternPlan>& patterns, const std::filesystem::path& file,
                 std::vector<double>& means) {
  const auto& world = session.world();
  const auto vocab_size = session.settings().model.vocab_size;
  const auto length = static_cast<std::size_t>(tokens.length);
  const auto vocab = static_cast<std::size_t>(vocab_size);
  std::optional<DumpFile> out;
  std::optional<HostLogits> host;
  world.agree([&] {
    if (world.root()) out.emplace(file, tokens, vocab_size);
    host.emplace(session.ops(), tokens.length, vocab_size);
  });
  std::vector<double> losses(length - 1);
  for (std::size_t p = 0; p < patterns.size(); ++p) {
    double sum = 0;
    world.agree([&] {
      if (out) out->begin(p, patterns[p]);
    });
    for (std::int64_t row = 0; row < tokens.rows(); ++row) {
      const auto inputs = std::span(tokens.tokens).subspan(static_cast<std::size_t>(row) * length, length);
      session.model().logits(inputs, patterns[p], host->tensor());
      const auto logits = host->download();
      for (std::size_t t = 0; t + 1 < length; ++t) {
        losses[t] = loss_of(logits.subspan(t * vocab, vocab), inputs[t + 1]);
        sum += losses[t];
      }
      world.agree([&] {
        if (out) out->write(row, logits, losses);
      });
    }
    means.push_back(sum / static_cast<double>(tokens.rows() * (tokens.length - 1)));
  }
  world.agree([&] {
    if (out) out->commit();
  });
}

bool is_logits_dump(const std::filesystem::path& file) {
  try {
    const auto in = hdf5::File::open(file);
    return in.has_attribute("sequences") && in.has_attribute("length") && in.has_attribute("vocab_size");
  } catch (const Error&) {
    return false;
  }
}

}  // namespace ratplus::evaluation
