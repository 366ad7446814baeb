#include "data/prepare/prepare.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <numeric>
#include <system_error>
#include <utility>

#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/files/file_lock.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/start_thread.h"
#include "data/dataset/held_out.h"
#include "data/dataset/shard.h"
#include "data/dataset/staged_dataset.h"
#include "data/dataset/token_stream.h"
#include "data/prepare/portion_file.h"
#include "data/prepare/shard_plan.h"
#include "data/prepare/text_portions.h"
#include "data/prepare/token_pipeline.h"
#include "data/text/text_source.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/train_tokenizer.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Report = std::function<void(const PrepareProgress&)>;

/// What is written before there is a dataset; in the output directory.
constexpr const char* work_name = ".prepare";
/// Of a trained tokenizer beside the shards (Tokenizer::file_name).
constexpr const char* trained_name = "tokenizer.model";
/// Text that the tokenizer is trained on, at most: more changes its pieces little, but costs memory and time.
constexpr double max_training_bytes = 64.0 * (1 << 20);
/// Of a portion, in a text of a character for each.
constexpr char is_done = 'x';

void check_options(const PrepareOptions& options) {
  if (options.output.empty()) fail("no output; name the dataset's directory with --output");
  if (options.tokenizer && options.train_vocab_size > 0) {
    fail("both a tokenizer and the training of one are asked for; give --tokenizer or --train-tokenizer");
  }
  if (!options.tokenizer && options.train_vocab_size <= 0) {
    fail("no tokenizer; give one with --tokenizer, or train one on the input with --train-tokenizer");
  }
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    fail("--validation-fraction {} is outside [0, 1)", options.validation_fraction);
  }
  if (options.shard_tokens < 1) fail("--shard-tokens {} is not positive", options.shard_tokens);
  if (options.compression < 0 || options.compression > 9) {
    fail("--compression {} is outside 0 (none) to 9", options.compression);
  }
  if (options.tokenizer) require_copyable(*options.tokenizer);
}

/// A digest of what the dataset is made from: the options, and the inputs' paths, sizes and times of change.
/// `identity`: of the given tokenizer; empty: one is trained.
std::string source_fingerprint(const PrepareOptions& options, const std::string& identity,
                               const std::vector<TextFile>& files) {
  Sha256 digest;
  const std::string tokenizer = identity.empty() ? fmt::format("train {}", options.train_vocab_size)
                                                 : identity.substr(identity.rfind(':') + 1);
  digest.update(fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n", tokenizer, options.end_of_text, options.text_key,
                            options.validation_fraction, options.deduplicate, options.shard_tokens,
                            options.compression));
  for (const TextFile& file : files) digest.update(file_mark(file) + "\n");
  return "sha256:" + digest.hex();
}

// The output directory.

bool complete(const fs::path& directory, const Manifest& manifest) {
  try {
    TokenStream(directory, manifest, Split::train).check_all();
    TokenStream(directory, manifest, Split::validation).check_all();
  } catch (const Error&) {
    return false;
  }
  return fs::exists(directory / manifest.tokenizer_file);
}

/// The manifest in `directory` if it can be read.
std::optional<Manifest> existing_manifest(const fs::path& directory) {
  try {
    return read_manifest(directory);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// The tokenizer.

/// The model's bytes, trained on the input without its held-out documents. The training runs on a thread of
/// its own, so that this one can report meanwhile.
std::string trained_model(const PrepareOptions& options, const std::vector<TextFile>& files,
                          const Report& report) {
  TextSource source(whole_files(files), options.text_key);
  const std::int64_t bytes_total = source.bytes_total();
  std::atomic<std::int64_t> bytes_done = 0;
  std::atomic<std::int64_t> documents = 0;
  std::atomic<bool> interrupted = false;
  const auto next_document = [&](std::string& text) {
    for (RawDocument raw; source.next(raw);) {
      if (interrupted) fail("interrupted");
      text = parse_document(std::move(raw), options.text_key).text;
      bytes_done = source.bytes_done();
      ++documents;
      if (held_out_position(text) >= options.validation_fraction) return true;
    }
    return false;
  };
  const TokenizerTraining training{
      .vocab_size = options.train_vocab_size,
      .line_share =
          std::min(1.0, max_training_bytes / static_cast<double>(std::max<std::int64_t>(bytes_total, 1)))};
  const ElapsedTime stopwatch;
  std::future<std::string> model = start_async([&] { return train_tokenizer(training, next_document); });
  try {
    while (model.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
      const bool reading = bytes_done < bytes_total;
      report({.phase = reading ? "read text for the tokenizer" : "train the tokenizer",
              .documents = documents,
              .bytes_done = bytes_done,
              .bytes_total = reading ? bytes_total : 0,
              .seconds = stopwatch.seconds()});
    }
  } catch (...) {
    interrupted = true;
    throw;
  }
  return model.get();
}

/// Who does which: each piece of work that is not done, the largest first, goes to whom has least.
std::vector<int> share_out(const std::vector<std::int64_t>& sizes, const std::string& done, int workers) {
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t i) { return done[i] == is_done; });
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  std::vector<std::int64_t> load(static_cast<std::size_t>(workers), 0);
  std::vector<int> owner(sizes.size(), -1);
  for (const std::size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    owner[i] = static_cast<int>(least - load.begin());
    *least += sizes[i] + 1;
  }
  return owner;
}

/// The work between the inputs and the dataset. Each step is done by all processes together, and can be done again.
class Preparation {
 public:
  Preparation(const PrepareOptions& options, const Report& report, const Team& team)
      : options_(options), report_(report), team_(team), work_(options.output / work_name) {}

  void undo_interrupted() const {
    check_options(options_);
    if (team_.rank == 0) undo_interrupted_publication(options_.output);
  }

  /// What the directory held already; if that is not the dataset of these inputs and options, nothing.
  std::optional<Manifest> look() {
    if (options_.tokenizer) tokenizer_.emplace(*options_.tokenizer, options_.end_of_text).end_of_text();
    files_ = list_text_files(options_.inputs, &notes_);
    source_ = source_fingerprint(options_, tokenizer_ ? tokenizer_->identity() : "", files_);
    if (!fs::exists(options_.output / manifest_name)) {
      if (team_.rank != 0)
        return std::nullopt;  // others may see files later; what process 0 finds all get to know
      check_replaceable(options_.output, tokenizer_ ? tokenizer_->file_name() : "",
                        tokenizer_ ? *options_.tokenizer : "", options_.force);
      if (!tokenizer_) keep_other_tokenizer();
      return std::nullopt;
    }
    const std::optional<Manifest> existing = existing_manifest(options_.output);
    const bool same = existing && existing->source == source_;
    if (same && !options_.force && complete(options_.output, *existing)) return existing;
    if (!same && !options_.force) {
      fail(
          "{} already holds a dataset of other inputs or options; replace it with --force, or choose another "
          "--output",
          options_.output.string());
    }
    return std::nullopt;
  }

  /// The model to use, trained on the first call if it has to be.
  void find_tokenizer() {
    if (!options_.tokenizer && team_.rank == 0 && !fs::exists(trained_file())) {
      write_whole_file(trained_file(), trained_model(options_, files_, report_));
    }
  }

  void load_tokenizer() {
    if (!tokenizer_) tokenizer_.emplace(trained_file(), options_.end_of_text);
    shared_ = {.vocab_size = tokenizer_->vocab_size(),
               .end_of_text = tokenizer_->end_of_text(),
               .tokenizer = tokenizer_->identity()};
    const std::int64_t bytes =
        options_.portion_bytes > 0 ? options_.portion_bytes : portion_bytes_for(files_);
    portions_ =
        cut_into_portions(files_, bytes,
                          fmt::format("1 {} {} {} {} {}\n", shared_.tokenizer, shared_.end_of_text,
                                      options_.text_key, options_.validation_fraction, options_.deduplicate));
  }

  /// This process's portions that are not done.
  void tokenize();

  void plan() {
    if (team_.rank != 0) return;
    PortionInfo all = total();
    check_splits(all);
    if (options_.deduplicate) duplicates_ = find_duplicates(work_, std::ssize(portions_));
    write_plan(work_ / "plan.json",
               plan_shards(work_, std::ssize(portions_), options_.shard_tokens, options_.deduplicate));
    NewDirectories(shards_directory()).keep();
  }

  /// This process's shards.
  void write_shards() {
    const std::vector<PlannedShard> plan = read_plan(work_ / "plan.json");
    const ElapsedTime stopwatch;
    std::int64_t tokens = 0;
    for (const PlannedShard& shard : plan) tokens += shard.entry.tokens;
    PrepareProgress progress{.phase = "write shards", .bytes_total = tokens};
    for (std::size_t i = 0; i < plan.size(); ++i) {
      progress.seconds = stopwatch.seconds();
      report_(progress);
      progress.bytes_done += plan[i].entry.tokens;
      if (static_cast<int>(i) % team_.size != team_.rank) continue;
      write_shard(shards_directory(), work_, plan[i], shared_, options_.compression, options_.deduplicate);
    }
    progress.seconds = stopwatch.seconds();
    report_(progress);
  }

  /// Puts shards, tokenizer and, last of all, the manifest in their places.
  void finish() {
    if (team_.rank != 0) return;
    Manifest manifest{.vocab_size = shared_.vocab_size,
                      .end_of_text = shared_.end_of_text,
                      .tokenizer = shared_.tokenizer,
                      .tokenizer_file = tokenizer_->file_name(),
                      .source = source_,
                      .sample_length = 0,
                      .train = {},
                      .validation = {}};
    const std::vector<PlannedShard> plan = read_plan(work_ / "plan.json");
    for (const PlannedShard& shard : plan) {
      ManifestShard entry = shard.entry;
      entry.crc32 = ShardReader(shards_directory() / entry.file).info().crc32;
      (shard.split == Split::train ? manifest.train : manifest.validation).push_back(std::move(entry));
    }
    // A model that is used from where it would be copied to stays as it is, whatever happens.
    stage_tokenizer(options_.tokenizer ? *options_.tokenizer : trained_file(), manifest, shards_directory(),
                    options_.output);
    publish_dataset(shards_directory(), options_.output, manifest);
    fs::remove_all(work_);
  }

  const std::vector<std::string>& notes() const { return notes_; }

  PrepareResult result() const {
    return {.manifest = read_manifest(options_.output),
            .already_there = false,
            .repaired = counted_.repaired,
            .first_repaired = first_repaired_,
            .left_out_empty = counted_.left_out_empty,
            .duplicates = duplicates_,
            .notes = notes_};
  }

  void make_work_directory() {
    if (team_.rank != 0) return;
    made_.emplace(work_);
    lock_.emplace(lock_output(options_.output));
  }

  /// From here on all processes write into it.
  void keep_work_directory() {
    if (made_) made_->keep();
  }

 private:
  /// Its name says what it was trained on and how.
  fs::path trained_file() const {
    Sha256 digest;
    digest.update(fmt::format("{} {} {}\n", options_.train_vocab_size, options_.text_key,
                              options_.validation_fraction));
    for (const TextFile& file : files_) digest.update(file_mark(file) + "\n");
    return work_ / fmt::format("tokenizer-{}.model", digest.hex().substr(0, 16));
  }

  /// Throws Error where a tokenizer of the name of the one to be trained is there that is not ours; an interrupted call
  /// may have put ours there.
  void keep_other_tokenizer() const {
    const fs::path there = options_.output / trained_name;
    if (options_.force || !fs::is_regular_file(there)) return;
    if (fs::exists(trained_file()) && read_whole_file(there) == read_whole_file(trained_file())) return;
    fail(
        "{} would be replaced by the tokenizer that is trained; use it with --tokenizer, replace it with "
        "--force, or choose another --output",
        there.string());
  }

  /// Its name says what they are cut from and how: shards of another plan are not taken for those of this one.
  fs::path shards_directory() const {
    Sha256 digest;
    digest.update(fmt::format("{} {} {}\n", options_.shard_tokens, options_.compression, portions_.size()));
    for (const TextPortion& portion : portions_) digest.update(portion.source);
    return work_ / fmt::format("shards-{}", digest.hex().substr(0, 16));
  }

  std::optional<PortionInfo> info_of(std::size_t portion) const {
    return read_portion_info(work_, static_cast<std::int64_t>(portion), portions_[portion].source);
  }

  PortionInfo total();
  void check_splits(const PortionInfo& all) const;

  const PrepareOptions& options_;
  const Report& report_;
  const Team& team_;
  const fs::path work_;
  std::optional<NewDirectories> made_;  ///< that go again where there is no tokenizer; root only
  std::optional<FileLock> lock_;        ///< root only
  std::vector<TextFile> files_;
  std::vector<std::string> notes_;  ///< on the inputs
  std::string source_;
  std::optional<Tokenizer> tokenizer_;
  ShardInfo shared_;
  std::vector<TextPortion> portions_;
  PortionInfo counted_;  ///< root only
  std::string first_repaired_;
  std::int64_t duplicates_ = 0;
};

/// How far all processes have come: this one by what it does, the others by the portions that they have finished.
class TeamProgress {
 public:
  TeamProgress(const Report& report, std::int64_t bytes_total) {
    report_ = &report;
    progress_ = {.phase = "tokenize", .bytes_total = bytes_total};
  }

  void add_before(std::int64_t bytes) {
    progress_.bytes_done += bytes;
    progress_.bytes_before += bytes;
  }
  void expect(std::size_t portion) { others_.push_back(portion); }
  void add_own(std::int64_t tokens) {
    ++progress_.documents;
    progress_.tokens += tokens;
  }
  void add_own_portion(std::int64_t bytes) { progress_.bytes_done += bytes; }

  /// `info_of` looks for a portion of another process. A few are looked for at a time, every two seconds.
  template <typename InfoOf>
  void report(std::int64_t bytes_under_way, const InfoOf& info_of) {
    if (stopwatch_.seconds() > looked_ + 2) {
      looked_ = stopwatch_.seconds();
      for (std::size_t tries = std::min<std::size_t>(others_.size(), 100); tries > 0 && !others_.empty();
           --tries) {
        next_ = next_ % others_.size();
        if (const std::optional<PortionInfo> info = info_of(others_[next_])) {
          progress_.documents += info->documents[0] + info->documents[1];
          progress_.tokens += info->tokens[0] + info->tokens[1];
          progress_.bytes_done += info->bytes;
          others_[next_] = others_.back();
          others_.pop_back();
        } else {
          ++next_;
        }
      }
    }
    PrepareProgress now = progress_;
    now.bytes_done += bytes_under_way;
    now.seconds = stopwatch_.seconds();
    (*report_)(now);
  }

 private:
  const Report* report_ = nullptr;
  ElapsedTime stopwatch_;
  PrepareProgress progress_;
  std::vector<std::size_t> others_;  ///< portions that other processes have not finished yet
  std::size_t next_ = 0;
  double looked_ = 0;
};

/// A place in one of the portion's files, without pointing to it, and back.
PlaceInPortion place_in(const TextPortion& portion, const DocumentPlace& place) {
  const auto part = std::ranges::find(portion.parts, place.file, &TextPart::file);
  return {part - portion.parts.begin(), place.line, place.offset};
}

DocumentPlace place_in(const TextPortion& portion, const PlaceInPortion& place) {
  return {portion.parts.at(static_cast<std::size_t>(place.part)).file, place.line, place.offset};
}

void Preparation::tokenize() {
  std::vector<std::int64_t> sizes;
  for (const TextPortion& portion : portions_) sizes.push_back(portion.bytes);
  // As process 0 sees it: others may see a file later, or one that is written meanwhile, and would share out otherwise.
  const std::string done = team_.from_root([&] {
    std::string marks;
    for (std::size_t i = 0; i < portions_.size(); ++i) marks += info_of(i) ? is_done : '-';
    return marks;
  });
  if (done.size() != portions_.size())
    fail("the inputs differ between processes; were they changed meanwhile? Run the command again");
  const std::vector<int> owner = share_out(sizes, done, team_.size);
  TeamProgress progress(report_, std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
  std::vector<const TextPortion*> mine;
  for (std::size_t i = 0; i < portions_.size(); ++i) {
    if (done[i] == is_done) {
      progress.add_before(sizes[i]);
    } else if (owner[i] == team_.rank) {
      mine.push_back(&portions_[i]);
    } else {
      progress.expect(i);
    }
  }
  const auto info_of_other = [&](std::size_t portion) { return info_of(portion); };
  std::optional<PortionWriter> writer;
  PortionInfo info;
  std::size_t next = 0;
  const auto begin_portion = [&] {
    info = {};
    if (next < mine.size()) writer.emplace(work_, mine[next] - portions_.data(), shared_.vocab_size);
  };
  const PipelineSink sink{.document =
                              [&](const TokenizedDocument& document) {
                                if (document.repaired && info.repaired++ == 0)
                                  info.first_repaired = place_in(*mine[next], document.place);
                                info.left_out_empty += document.empty ? 1 : 0;
                                if (document.empty) return;
                                info.lowest_position = std::min(info.lowest_position, document.position);
                                info.highest_position = std::max(info.highest_position, document.position);
                                const bool held_out = document.position < options_.validation_fraction;
                                writer->add(held_out ? Split::validation : Split::train, document,
                                            static_cast<std::int32_t>(shared_.end_of_text));
                                progress.add_own(std::ssize(document.tokens) + 1);
                              },
                          .progress = [&](std::int64_t bytes) { progress.report(bytes, info_of_other); },
                          .portion_done =
                              [&](const TextPortion& portion) {
                                check_unchanged(portion);
                                info.source = portion.source;
                                info.bytes = portion.bytes;
                                writer->finish(info);
                                progress.add_own_portion(portion.bytes);
                                ++next;
                                begin_portion();
                              }};
  begin_portion();
  const int threads = options_.threads > 0 ? options_.threads : omp_get_max_threads();
  tokenize_portions(mine, *tokenizer_,
                    {.text_key = options_.text_key, .hash_texts = options_.deduplicate, .threads = threads},
                    sink);
  progress.report(0, info_of_other);
}

PortionInfo Preparation::total() {
  counted_ = {};
  for (std::size_t i = 0; i < portions_.size(); ++i) {
    const std::optional<PortionInfo> info = info_of(i);
    if (!info)
      fail("{}: portion {} is not finished; were the inputs changed meanwhile? Run the command again",
           work_.string(), i);
    for (std::size_t s = 0; s < 2; ++s) counted_.documents[s] += info->documents[s];
    if (info->repaired > 0 && counted_.repaired == 0)
      first_repaired_ = to_string(place_in(portions_[i], info->first_repaired));
    counted_.repaired += info->repaired;
    counted_.left_out_empty += info->left_out_empty;
    counted_.lowest_position = std::min(counted_.lowest_position, info->lowest_position);
    counted_.highest_position = std::max(counted_.highest_position, info->highest_position);
  }
  return counted_;
}

void Preparation::check_splits(const PortionInfo& all) const {
  const std::int64_t documents = all.documents[0] + all.documents[1];
  if (documents == 0) fail("the input holds no text");
  if (options_.validation_fraction == 0) return;
  if (documents == 1) {
    fail(
        "the input has one document, so none can be held out; give more documents, or "
        "--validation-fraction 0");
  }
  if (all.documents[1] == 0) {
    fail(
        "no document fell in the held-out part ({} documents); raise --validation-fraction from {} to "
        "{:.4f} or more",
        documents, options_.validation_fraction, all.lowest_position + 1e-4);
  }
  if (all.documents[0] == 0) {
    fail(
        "every document fell in the held-out part ({} documents); lower --validation-fraction from {} to "
        "below {:.4f}",
        documents, options_.validation_fraction, all.highest_position);
  }
}

}  // namespace

PrepareResult prepare(const PrepareOptions& options, const Report& report, const Team& team) {
  Preparation preparation(options, report, team);
  std::optional<Manifest> existing;
  team.agree([&] { preparation.undo_interrupted(); });
  team.agree([&] { existing = preparation.look(); });
  if (existing) return {.manifest = *existing, .already_there = true, .notes = preparation.notes()};
  team.agree([&] { preparation.make_work_directory(); });
  team.agree([&] { preparation.find_tokenizer(); });
  team.agree([&] { preparation.load_tokenizer(); });
  preparation.keep_work_directory();
  // The long steps are not agreed on: what fails on one process ends it at once, and does not wait for the others.
  const auto wait_for_all = [&] { team.agree([] {}); };
  preparation.tokenize();
  wait_for_all();
  team.agree([&] { preparation.plan(); });
  preparation.write_shards();
  wait_for_all();
  team.agree([&] { preparation.finish(); });
  return preparation.result();
}

}  // namespace ratplus::data
