// Work on the lines of a file by all ranks: each line gives one line of the result, in the order of the input, and what is
// done survives an end at any moment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/world.h"

namespace ratplus::generate {

/// The lines of a file with JSON, one object a line; lines of blanks alone are left out.
class InputLines {
 public:
  /// A file, packed where it ends in .gz or .zst. Throws Error where it cannot be read, or has no line.
  explicit InputLines(const std::filesystem::path& file);
  InputLines(const InputLines&) = delete;
  InputLines& operator=(const InputLines&) = delete;

  std::size_t size() const { return lines_.size(); }
  std::string_view operator[](std::size_t i) const { return lines_[i].text; }
  /// Its number in the file, from 1.
  std::int64_t number(std::size_t i) const { return lines_[i].number; }
  /// "requests.jsonl, line 12".
  std::string where(std::size_t i) const;
  /// Throws Error, beginning with where(i), unless the line is a JSON object.
  nlohmann::ordered_json object(std::size_t i) const;
  /// Throws Error, beginning with where(i), unless a value of the line can go to a result as it is: JSON's numbers have 64
  /// bits here.
  void check_copied(std::size_t i, std::string_view name, const nlohmann::ordered_json& value) const;
  const std::filesystem::path& file() const { return file_; }

 private:
  struct Line {
    std::string_view text;
    std::int64_t number = 0;
  };

  std::filesystem::path file_;
  std::string bytes_;
  std::vector<Line> lines_;
};

/// What one rank does with lines.
class LineWorker {
 public:
  virtual ~LineWorker() = default;
  /// Throws Error, beginning with the line's place, unless the line can be worked on.
  virtual void check(std::size_t line) const = 0;
  /// Lines that it would take now, beside those that it has.
  virtual std::int64_t room() const = 0;
  virtual void add(std::size_t line) = 0;
  virtual bool idle() const = 0;
  /// A part of the work, of a second at most where that can be; done(line, result) for each line that it ends.
  using Done = std::function<void(std::size_t line, nlohmann::ordered_json result)>;
  virtual void step(const Done& done) = 0;
  /// Tokens that went through the model so far.
  virtual std::int64_t tokens() const = 0;
};

struct LineProgress {
  std::int64_t done = 0;  ///< lines, those kept from before included
  std::int64_t kept = 0;  ///< lines that an interrupted start had done
  std::int64_t all = 0;
  std::int64_t tokens = 0;  ///< of this start, on all ranks
  double seconds = 0;       ///< of this start
};

struct LineJob {
  const InputLines& input;
  /// Of the results, a line each; empty: `print` gets each line, its newline included, by the root in the order of the
  /// input, as soon as those before it are there.
  std::filesystem::path output;
  std::function<void(std::string_view)> print;
  /// What results depend on beside the lines: an interrupted start is resumed by one with the same values.
  nlohmann::ordered_json identity;
  bool replace = false;             ///< an output that is there, or what a start with another identity left
  const char* command = "ratplus";  ///< for messages: "`ratplus generate`"
};

/// Throws Error where the output is there and not to be replaced, is a directory, or has none to be in.
void check_output_file(const LineJob& job);

/// Checks all lines, by all ranks together. Throws parallel::AgreedError for the first bad one.
void check_lines(const InputLines& input, const LineWorker& worker, const parallel::World& world);

/// Does the lines by all ranks, which take them as they have room. Results go to `.NAME.unfinished` beside the output NAME as
/// they come, and from there in order to NAME, which appears whole; a later call resumes from those whose input line is the
/// same. `each` gets every result by the root, in order. Returns false where a StopSignal ended it: then what is done is
/// kept. Throws Error, on all ranks alike, where the work or the writing fails, or another process writes there.
bool do_lines(const LineJob& job, LineWorker& worker, const parallel::World& world,
              const std::function<void(const LineProgress&)>& report,
              const std::function<void(const nlohmann::ordered_json&)>& each);

}  // namespace ratplus::generate
