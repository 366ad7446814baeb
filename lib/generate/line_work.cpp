#include "lib/generate/line_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/files/append_file.h"
#include "base/files/byte_file.h"
#include "base/files/byte_stream.h"
#include "base/files/file_lock.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "base/stop_signal.h"
#include "base/units.h"

namespace ratplus::generate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr auto round_time = std::chrono::milliseconds(500);
constexpr std::string_view blanks = " \t\r";

std::string read_all(const fs::path& file) {
  if (fs::is_directory(file)) fail("{}: is a directory; give a file of JSON lines", file.string());
  const auto extension = file.extension();
  const auto packing = extension == ".gz"    ? Packing::gzip
                       : extension == ".zst" ? Packing::zstd
                                             : Packing::none;
  const auto stream = open_bytes(file, packing);
  std::string all;
  std::string part(std::size_t{1} << 20, '\0');
  while (const std::size_t got = stream->read(part)) all.append(part, 0, got);
  return all;
}

std::string digest_of(std::string_view line) {
  return sha256_hex(line).substr(0, 32);
}

/// Whether a number may have been a whole one of more than 64 bits, which the reader rounds.
bool holds_rounded(const Json& value) {
  constexpr double most = 0x1p63;
  if (value.is_structured()) return std::ranges::any_of(value, holds_rounded);
  return value.is_number_float() && std::abs(value.get<double>()) >= most;
}

/// Whether a whole number of more than 64 bits stands in a line of JSON, outside its texts.
bool has_long_number(std::string_view json) {
  constexpr std::string_view digits = "0123456789", of_numbers = "0123456789+-.eE";
  bool in_text = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    if (json[i] == '"') in_text = !in_text;
    if (in_text && json[i] == '\\') ++i;
    if (in_text || digits.find(json[i]) == std::string_view::npos) continue;
    const auto end = std::min(json.find_first_not_of(of_numbers, i), json.size());
    const auto number = json.substr(i, end - i);
    std::uint64_t value = 0;
    if (number.find_first_not_of(digits) == std::string_view::npos &&
        std::from_chars(number.data(), number.data() + number.size(), value).ec ==
            std::errc::result_out_of_range)
      return true;
    i = end - 1;
  }
  return false;
}

bool is_json(std::string_view text) {
  return text.find('\0') == std::string_view::npos && nlohmann::json::accept(text);
}

/// The results of lines on their way to the output, by the root: one file, a header and then "LINE DIGEST RESULT" a line.
class Journal {
 public:
  explicit Journal(const LineJob& job)
      : job_(job),
        file_(job.output.parent_path() / fmt::format(".{}.unfinished", job.output.filename().string())),
        lock_(file_, job.output, job.command),
        places_(job.input.size()) {
    const auto header = json_dump(job.identity) + "\n";
    const auto valid = resume(header);
    if (valid == 0) fs::resize_file(file_, 0);
    append_.emplace(file_);
    if (valid == 0) add_bytes(header);
  }

  bool has(std::size_t line) const { return places_[line].bytes > 0; }

  void add(std::size_t line, std::string_view result) {
    const auto head = fmt::format("{} {} ", line, digest_of(job_.input[line]));
    places_[line] = {size_ + std::ssize(head), std::ssize(result)};
    add_bytes(head + std::string(result) + "\n");
  }

  /// All results in their order to the output.
  void publish(const std::function<void(const Json&)>& each) {
    PendingFile pending(job_.output);
    const ByteReader reader(file_);
    ByteWriter writer(pending.path(), job_.output);
    for (std::size_t i = 0; i < places_.size(); ++i) {
      require(has(i), "line {} has no result", i);
      const auto result = reader.read(places_[i].begin, places_[i].bytes);
      each(parse_json<Json>(result));
      writer.write(result);
      writer.write("\n");
    }
    writer.close();
    pending.commit();
    std::error_code ignored;
    fs::remove(file_, ignored);
  }

 private:
  struct Place {
    std::int64_t begin = 0;
    std::int64_t bytes = 0;
  };

  /// Throws Error where bytes cannot be written; those that are stay.
  void add_bytes(std::string_view bytes) {
    append_->add(bytes);
    size_ += std::ssize(bytes);
    const auto trouble = append_->trouble();
    if (!trouble.empty()) fail("{}; the same command goes on where it stopped", trouble);
  }

  /// Finds the results that are there, and cuts off what an interrupted write left. Returns the bytes to go on after; 0:
  /// there is nothing to go on from.
  std::int64_t resume(const std::string& header) {
    const auto text = read_whole_file(file_);
    const auto first = text.find('\n');
    if (first == std::string::npos) return 0;
    const auto there = std::string_view(text).substr(0, first + 1);
    if (there != header && there != header_without_weights()) {
      if (job_.replace || text.size() == first + 1) return 0;
      fail(
          "{}: holds results of a start that differs in {}; repeat that command to finish it, or give "
          "--force to "
          "start over",
          file_.string(), difference(text.substr(0, first)));
    }
    size_ = static_cast<std::int64_t>(first) + 1;
    for (auto end = text.find('\n', first + 1); end != std::string::npos;
         end = text.find('\n', static_cast<std::size_t>(size_))) {
      if (!take(std::string_view(text).substr(static_cast<std::size_t>(size_),
                                              end - static_cast<std::size_t>(size_))))
        break;
      size_ = static_cast<std::int64_t>(end) + 1;
    }
    fs::resize_file(file_, static_cast<std::uintmax_t>(size_));
    return size_;
  }

  /// As versions began it that did not tell weights at one path apart.
  std::string header_without_weights() const {
    Json identity = job_.identity;
    identity.erase("weights");
    return json_dump(identity) + "\n";
  }

  /// One line of the file. False where it is none: after a crash of the machine a file may end so.
  bool take(std::string_view text) {
    std::size_t line = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), line);
    const auto head = static_cast<std::size_t>(read.ptr - text.data());
    constexpr std::size_t digest_size = 32;
    if (read.ec != std::errc{} || text.size() < head + digest_size + 3) return false;
    const auto result = text.substr(head + digest_size + 2);
    if (!is_json(result)) return false;
    if (line >= places_.size() || digest_of(job_.input[line]) != text.substr(head + 1, digest_size))
      return true;
    places_[line] = {size_ + static_cast<std::int64_t>(head + digest_size + 2), std::ssize(result)};
    return true;
  }

  /// The keys whose values differ, with both.
  std::string difference(const std::string& header) const {
    Json before;
    try {
      before = parse_json<Json>(header);
    } catch (const Json::exception&) {
      return "its form";
    }
    std::vector<std::string> keys;
    const auto flat = before.flatten(), now = job_.identity.flatten();
    for (const auto& [key, value] : now.items()) {
      if (!flat.contains(key)) {
        keys.push_back(key.substr(1));
      } else if (flat[key] != value) {
        keys.push_back(
            fmt::format("{} ({} there, {} here)", key.substr(1), json_dump(flat[key]), json_dump(value)));
      }
    }
    return keys.empty() ? "its options" : fmt::format("{}", fmt::join(keys, ", "));
  }

  const LineJob& job_;
  fs::path file_;
  FileLock lock_;
  std::vector<Place> places_;
  std::int64_t size_ = 0;
  std::optional<AppendFile> append_;
};

/// Results that are printed in the order of the input, by the root.
class PrintedInOrder {
 public:
  PrintedInOrder(const LineJob& job, const std::function<void(const Json&)>& each)
      : job_(job), each_(each), results_(job.input.size()) {}

  void add(std::size_t line, std::string_view result) {
    results_[line] = result;
    for (; next_ < results_.size() && !results_[next_].empty(); ++next_) {
      each_(parse_json<Json>(results_[next_]));
      job_.print(results_[next_] + "\n");
      results_[next_] = {};
    }
  }

 private:
  const LineJob& job_;
  const std::function<void(const Json&)>& each_;
  std::vector<std::string> results_;
  std::size_t next_ = 0;
};

/// Deals lines to ranks that have room, one each in turn, the same on every rank.
class Dealer {
 public:
  explicit Dealer(std::vector<std::size_t> lines) : lines_(std::move(lines)) {}

  bool empty() const { return next_ == lines_.size(); }
  /// The lines of rank `own`.
  std::vector<std::size_t> deal(std::vector<double> room, int own) {
    std::vector<std::size_t> mine;
    for (bool any = true; any && !empty();) {
      any = false;
      for (std::size_t r = 0; r < room.size() && !empty(); ++r) {
        if (room[r] < 1) continue;
        room[r] -= 1;
        any = true;
        if (static_cast<int>(r) == own) mine.push_back(lines_[next_]);
        ++next_;
      }
    }
    return mine;
  }

 private:
  std::vector<std::size_t> lines_;
  std::size_t next_ = 0;
};

/// Lines without a result yet, as the root knows them.
std::vector<std::size_t> missing_lines(const std::optional<Journal>& journal, std::size_t all,
                                       const parallel::World& world) {
  const auto flags = world.from_root([&] {
    std::string text(all, '1');
    for (std::size_t i = 0; journal && i < all; ++i) text[i] = journal->has(i) ? '0' : '1';
    return text;
  });
  std::vector<std::size_t> lines;
  for (std::size_t i = 0; i < flags.size(); ++i) {
    if (flags[i] == '1') lines.push_back(i);
  }
  return lines;
}

/// Calls f(line, result) for the lines of the texts that ranks send.
void for_each_result(const std::vector<std::string>& texts,
                     const std::function<void(std::size_t, std::string_view)>& f) {
  for (const std::string& text : texts) {
    for (std::size_t begin = 0; begin < text.size();) {
      const auto end = text.find('\n', begin);
      std::size_t line = 0;
      const auto read = std::from_chars(text.data() + begin, text.data() + end, line);
      const auto result = static_cast<std::size_t>(read.ptr - text.data()) + 1;
      f(line, std::string_view(text).substr(result, end - result));
      begin = end + 1;
    }
  }
}

}  // namespace

// --- input -------------------------------------------------------------------------------------------------------

InputLines::InputLines(const fs::path& file) : file_(file), bytes_(read_all(file)) {
  std::int64_t number = 1;
  for (std::size_t begin = 0; begin < bytes_.size(); ++number) {
    const auto end = std::min(bytes_.find('\n', begin), bytes_.size());
    const auto text = std::string_view(bytes_).substr(begin, end - begin);
    if (text.find_first_not_of(blanks) != std::string_view::npos) lines_.push_back({text, number});
    begin = end + 1;
  }
  if (lines_.empty()) fail("{}: has no line; give one JSON object a line", file.string());
}

std::string InputLines::where(std::size_t i) const {
  return fmt::format("{}, line {}", file_.string(), number(i));
}

Json InputLines::object(std::size_t i) const {
  Json json;
  try {
    json = parse_json<Json>(lines_[i].text);
  } catch (const Json::exception& error) {
    fail("{}: not JSON ({}); give one object a line", where(i), error.what());
  }
  if (!json.is_object())
    fail("{}: a JSON {}, not an object; give one object a line", where(i), json.type_name());
  return json;
}

void InputLines::check_copied(std::size_t i, std::string_view name, const Json& value) const {
  if (!holds_rounded(value) || !has_long_number(lines_[i].text)) return;
  fail("{}: \"{}\" holds a whole number of more than 64 bits, which would be rounded; give it as a text",
       where(i), name);
}

// --- work --------------------------------------------------------------------------------------------------------

void check_output_file(const LineJob& job) {
  const auto& output = job.output;
  if (output.empty()) return;
  if (fs::is_directory(output)) fail("{}: is a directory; give the name of a file", output.string());
  if (is_stream(output)) fail("{}: is a device or a pipe; give the name of a file", output.string());
  const auto parent = fs::absolute(output).parent_path();
  if (!fs::exists(parent)) fail("{}: there is no directory {}", output.string(), parent.string());
  std::error_code missing;
  if (fs::equivalent(output, job.input.file(), missing))
    fail("{}: is what the command reads; give another name", output.string());
  if (fs::exists(output) && !job.replace)
    fail("{}: is there already; give another name, or --force to replace it", output.string());
}

void check_lines(const InputLines& input, const LineWorker& worker, const parallel::World& world) {
  const auto all = static_cast<std::int64_t>(input.size());
  // The same file on every rank, as far as it can be seen.
  std::string digest;
  world.agree([&] {
    Sha256 hash;
    for (std::size_t i = 0; i < input.size(); ++i) hash.update(input[i]);
    digest = hash.hex();
  });
  if (const auto digests = world.all(digest); std::ranges::count(digests, digest) < std::ssize(digests))
    throw parallel::AgreedError(
        fmt::format("{}: ranks read different lines; wait until the file is written, and start again",
                    input.file().string()));
  std::string message;
  auto bad = all;
  for (auto i = static_cast<std::int64_t>(world.rank()); i < all && bad == all; i += world.size()) {
    try {
      worker.check(static_cast<std::size_t>(i));
    } catch (const std::exception& error) {
      message = error.what();
      bad = i;
    }
  }
  const auto firsts = world.all(bad);
  const auto first = std::ranges::min_element(firsts);
  if (*first == all) return;
  throw parallel::AgreedError(world.all(message)[static_cast<std::size_t>(first - firsts.begin())]);
}

bool do_lines(const LineJob& job, LineWorker& worker, const parallel::World& world,
              const std::function<void(const LineProgress&)>& report,
              const std::function<void(const Json&)>& each) {
  const ElapsedTime time;
  std::optional<Journal> journal;
  std::optional<PrintedInOrder> printed;
  world.agree([&] {
    if (!world.root()) return;
    if (job.output.empty()) {
      printed.emplace(job, each);
    } else {
      check_output_file(job);
      journal.emplace(job);
    }
  });
  auto missing = missing_lines(journal, job.input.size(), world);
  LineProgress progress{.all = static_cast<std::int64_t>(job.input.size())};
  progress.done = progress.kept = progress.all - std::ssize(missing);
  Dealer dealer(std::move(missing));
  for (;;) {
    std::string results;
    world.agree([&] {
      const auto end = std::chrono::steady_clock::now() + round_time;
      while (!worker.idle() && std::chrono::steady_clock::now() < end && StopSignal::received() == 0) {
        worker.step([&](std::size_t line, const Json& result) {
          results += fmt::format("{} {}\n", line, json_dump(result));
        });
      }
    });
    const auto gathered = world.all(results);
    world.agree([&] {
      for_each_result(gathered, [&](std::size_t line, std::string_view result) {
        ++progress.done;
        if (journal) journal->add(line, result);
        if (printed) printed->add(line, result);
      });
    });
    const std::array own = {static_cast<double>(worker.room()), StopSignal::received() == 0 ? 0.0 : 1.0,
                            static_cast<double>(worker.tokens())};
    const auto values = world.all(std::span(own));
    std::vector<double> room;
    bool stop = false;
    double tokens = 0;
    for (std::size_t i = 0; i < values.size(); i += own.size()) {
      room.push_back(values[i]);
      stop = stop || values[i + 1] > 0;
      tokens += values[i + 2];
    }
    progress.tokens = static_cast<std::int64_t>(tokens);
    progress.seconds = time.seconds();
    report(progress);
    if (progress.done == progress.all) break;
    if (stop) return false;
    world.agree([&] {
      for (const auto line : dealer.deal(std::move(room), world.rank())) worker.add(line);
    });
  }
  world.agree([&] {
    if (journal) journal->publish(each);
  });
  return true;
}

}  // namespace ratplus::generate
