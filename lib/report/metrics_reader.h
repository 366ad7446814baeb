// Reads a run directory: metrics.jsonl, the end of its newest start, and evaluation.json if it exists.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/evaluation/accuracy.h"
#include "lib/report/history.h"
#include "lib/report/scores.h"
#include "lib/run/health.h"
#include "lib/run/run_end.h"

namespace ratplus::report {

/// The loss of one of a step's updates, or of a validation, under one attention pattern. Mean cross-entropy
/// in nats a token; NaN where the run had diverged (JSON has no NaN: it is null there). A validation of samples with
/// labels has their accuracy too.
struct PatternLoss {
  std::string pattern;  ///< as model::PatternPlan::describe writes it: "dense", "64,0,0"
  double loss = 0;
  std::optional<evaluation::Accuracy> accuracy = {};
  std::int64_t cache_bytes = 0;  ///< of one sequence's cache in bfloat16, by an evaluation; 0: not known
  std::vector<double> by_position = {};      ///< loss of each part of the sequences, by an evaluation
  std::optional<double> bits_per_byte = {};  ///< of the held-out text, by an evaluation
};

/// A step or a validation: what was measured when `tokens` tokens had been seen.
struct Measurement {
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  std::vector<PatternLoss> losses;   ///< a step: one for each update, in order; a validation: one a pattern
  std::int64_t sequence_length = 0;  ///< tokens, of an evaluation or a last validation; 0: not known
  /// Of an evaluation by position: names of the parts of PatternLoss::by_position, "0-511".
  std::vector<std::string> positions = {};
  /// The text it was made on: the dataset's directory, its part, the number of sequences (of a validation, at most). Empty
  /// and 0: not known.
  std::string data = {}, split = {};
  std::int64_t sequences = 0;
};

/// Updates that were not made, since their loss or gradient norm is not finite.
struct LeftOut {
  std::int64_t updates = 0;
  std::int64_t step = 0;  ///< of the last one
  std::string pattern;
  double loss = 0;           ///< NaN: not finite
  double gradient_norm = 0;  ///< the same
  std::string file;          ///< that lists its samples; empty: not written
};

/// A return to a checkpoint, since ranks held different copies of what is to be alike.
struct WentBack {
  std::int64_t from = 0;   ///< the step after which they differed
  std::int64_t to = 0;     ///< the checkpoint's
  std::string difference;  ///< what, and on which ranks
};

/// One quantity of a run over its steps.
struct Series {
  /// As in metrics.jsonl: "learning_rate", "loss"; with the kind before it if that is not "step":
  /// "validation_loss", "checkpoint_stall_seconds".
  std::string field;
  std::string pattern;  ///< of what is measured for each update or each pattern; else empty
  History history;
};

struct RunMetrics {
  std::filesystem::path directory;
  std::string name;            ///< of the directory; of several runs, the shortest distinct end of its path
  std::vector<Series> series;  ///< in the order in which they came
  std::optional<Measurement> last_step;
  std::optional<Measurement> last_validation;
  std::optional<run::HealthMetrics> health;  ///< of the last step; runs of earlier versions have none
  std::optional<LeftOut> left_out;
  std::optional<WentBack> went_back;  ///< the last time
  std::optional<run::RunEnd> end;     ///< of the newest start, if recorded
  /// `ratplus eval --json RUN/evaluation.json`; its tokens are unknown.
  std::optional<Measurement> evaluation;
  std::string not_its_evaluation = {};     ///< why RUN/evaluation.json is left out; empty: it is not
  std::vector<PatternScores> scores = {};  ///< below RUN/scores
  std::vector<Speed> speeds = {};          ///< of RUN/generation.json

  std::int64_t steps = 0;            ///< of the whole run; 0: not known
  std::int64_t saved_step = -1;      ///< of the last complete checkpoint; -1: none
  double tokens_per_step = 0;        ///< the same for all steps
  double time = 0;                   ///< of the last line, in seconds since 1970; 0: not known
  std::int64_t steps_a_line = 0;     ///< between the last two lines of steps
  double seconds_left = -1;          ///< said by the last step; -1: not known
  std::int64_t previous_starts = 0;  ///< times that `seconds` began anew: the run was resumed

  void add_step(Measurement step);
  void add_validation(Measurement validation);
  void add(std::string_view field, std::string_view pattern, std::int64_t step, double value);
  /// Null where nothing of that name was measured.
  const History* find(std::string_view field, std::string_view pattern = "") const;
  /// The last value, and the middle one (of the last `count`, roughly); NaN where there is none.
  double last(std::string_view field, std::string_view pattern = "") const;
  double median(std::string_view field, std::size_t count = static_cast<std::size_t>(-1)) const;
  /// The patterns for which a field was measured, in the order in which they came.
  std::vector<std::string> patterns_of(std::string_view field) const;

  /// The measurement that judges the run: its evaluation unless a later validation outdates it, else the last
  /// validation. Null where there is neither.
  const Measurement* final_result() const;
  bool finished() const { return steps > 0 && saved_step >= steps; }
};

/// Reads a run's metrics.jsonl, also while it grows. Memory is bounded, however long the file is.
class MetricsReader {
 public:
  explicit MetricsReader(std::filesystem::path run);

  /// Takes in the lines that are complete by now; whether there were any. A file that was replaced, as a resumed run
  /// does, is read again from its beginning; one that is not there is a run without a line. Throws Error naming file
  /// and line for one that is no line of metrics. Of a long file a part at a time may be taken, of about `most` bytes.
  bool update(std::int64_t most = std::numeric_limits<std::int64_t>::max());
  /// The last update() has left something.
  bool behind() const { return offset_ < size_; }
  /// Bytes taken in, and there.
  std::int64_t offset() const { return offset_; }
  std::int64_t size() const { return size_; }
  /// Takes in a last line without newline, if it is one but for that: after a crash it may be cut short.
  void finish();

  const RunMetrics& metrics() const { return metrics_; }
  const std::filesystem::path& file() const { return file_; }

 private:
  bool take_lines(std::int64_t most);
  void begin_again();
  void take(std::string_view line);

  std::filesystem::path file_;
  RunMetrics metrics_;
  std::uint64_t inode_ = 0;
  std::int64_t offset_ = 0;  ///< bytes read
  std::int64_t size_ = 0;    ///< of the file, when it was last looked at
  std::int64_t lines_ = 0;   ///< taken in
  std::string rest_;         ///< the beginning of a line, without its end
};

/// Reads a run directory. A last line of metrics.jsonl that a crash has cut short is left out, and so is what
/// a resumed run has done again. Throws Error naming file and line for any other line that cannot be read,
/// and for a directory without a step or a validation.
RunMetrics read_metrics(const std::filesystem::path& run);
std::vector<RunMetrics> read_metrics(const std::vector<std::filesystem::path>& runs);

/// Throws Error, of a file that was given for a run directory.
[[noreturn]] void fail_no_run_directory(const std::filesystem::path& file);

/// Names for runs that are shown together: the shortest distinct end of each path, "a/run" and
/// "b/run". The same run given twice has one name.
std::vector<std::string> telling_names(const std::vector<std::filesystem::path>& runs);

/// The loss under `pattern`, if it was measured.
std::optional<double> loss_of(const Measurement* measurement, const std::string& pattern);

/// How tables and legends write a pattern: "dense", "D = 64", "D = 16, W = 256, I = 4"; what is no single
/// pattern stays as it is.
std::string pattern_label(const std::string& pattern);

}  // namespace ratplus::report
