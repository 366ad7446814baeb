// ratplus data-bench: how fast texts are tokenized and samples are loaded.
#include <fcntl.h>
#include <fmt/core.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/files/byte_stream.h"
#include "base/units.h"
#include "data/samples/loader.h"
#include "data/samples/samples.h"
#include "data/text/text_source.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* data_bench_help =
    R"(usage: ratplus data-bench FILE... --tokenizer MODEL        (one thread's tokenizing of .txt, .jsonl, .parquet)
       ratplus data-bench DATASET [--sequence-length T] [--batch B] [--sampling NAME] [--pace TOKENS/S]

The first tells what `ratplus prepare` could reach a thread if reading and writing took no time. The second loads steps
of B samples, from a cold page cache (dropped for the dataset's files) and a warm one, beside a plain read of the same
files; with --pace it takes the steps at that rate, as training would, and tells how long they waited.

examples:
  ratplus data-bench web.jsonl --tokenizer tokenizer.json
  ratplus data-bench data/web --sequence-length 4096 --pace 2e6

)";

/// Seconds of this thread on the processor, which other load does not change.
double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Settings {
  std::vector<std::string> inputs;
  std::string tokenizer;
  std::string text_key = "text";
  std::string sampling = "shuffled";
  std::int64_t sequence_length = 4096;
  std::int64_t batch = 64;
  double seconds = 5;
  double pace = 0;
};

void bench_tokenizer(const Settings& settings) {
  const data::Tokenizer tokenizer(settings.tokenizer);
  const auto files = data::list_text_files({settings.inputs.begin(), settings.inputs.end()});
  data::TextSource source(data::whole_files(files), settings.text_key);
  std::vector<std::string> texts;
  std::size_t bytes = 0;
  for (data::RawDocument raw; bytes < std::size_t{256} << 20 && source.next(raw);) {
    texts.push_back(data::parse_document(std::move(raw), settings.text_key).text);
    bytes += texts.back().size();
  }
  std::vector<std::int32_t> ids;
  std::int64_t tokens = 0;
  const ElapsedTime watch;
  const double cpu_before = cpu_seconds();
  for (const std::string& text : texts) {
    tokenizer.encode(text, ids);
    tokens += std::ssize(ids);
  }
  const double seconds = watch.seconds();
  const double cpu = cpu_seconds() - cpu_before;
  fmt::print(
      "tokenize: {}, {}, {} in {} ({} of CPU): {} MB/s, {} tokens/s a "
      "thread\n",
      counted(texts.size(), "document"), counted(bytes, "byte"), counted(tokens, "token"),
      format_duration(seconds), format_duration(cpu), format_fixed(double(bytes) / seconds / 1e6, 2),
      format_count(double(tokens) / seconds));
}

/// The training split's files, read from the beginning to the end.
double read_plainly(const fs::path& directory, const data::Manifest& manifest, std::int64_t& bytes) {
  std::vector<char> buffer(std::size_t{1} << 20);
  bytes = 0;
  const ElapsedTime watch;
  for (const auto& shard : manifest.train) {
    const auto stream = open_bytes(directory / shard.file, Packing::none);
    while (const std::size_t got = stream->read(buffer)) bytes += static_cast<std::int64_t>(got);
  }
  return watch.seconds();
}

void drop_from_cache(const fs::path& directory, const data::Manifest& manifest) {
  for (const auto& shard : manifest.train) {
    const int file = ::open((directory / shard.file).c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    ::fdatasync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

data::Sampling parse_sampling(const std::string& name) {
  for (const auto one : {data::Sampling::ordered, data::Sampling::random, data::Sampling::shuffled}) {
    if (name == to_string(one)) return one;
  }
  fail("--sampling {} is neither ordered nor random nor shuffled", name);
}

data::Loader make_loader(const Settings& settings, const fs::path& directory,
                         const data::Manifest& manifest) {
  const data::Sampling sampling = parse_sampling(settings.sampling);
  const std::vector<data::SampleSource> source{{directory, 1, manifest}};
  auto samples = std::make_unique<data::StreamSamples>(
      source, data::StreamSamples::Settings{.split = data::Split::train,
                                            .sampling = sampling,
                                            .sequence_length = settings.sequence_length,
                                            .seed = 1});
  return {
      std::move(samples),
      {.batch = settings.batch, .micro_batch = settings.batch, .sequence_length = settings.sequence_length},
      0,
      std::int64_t{1} << 40,
      2};
}

void load_for_a_while(const Settings& settings, const fs::path& directory, const data::Manifest& manifest,
                      const char* cache) {
  auto loader = make_loader(settings, directory, manifest);
  const double step_seconds =
      settings.pace > 0 ? static_cast<double>(settings.batch * settings.sequence_length) / settings.pace : 0;
  std::int64_t steps = 0;
  double first_wait = 0;  // for which nothing could be read ahead
  const ElapsedTime watch;
  for (; watch.seconds() < settings.seconds; ++steps) {
    loader.next();
    if (steps == 0) first_wait = loader.wait_seconds();
    const double ahead = static_cast<double>(steps + 1) * step_seconds - watch.seconds();
    if (ahead > 0) std::this_thread::sleep_for(std::chrono::duration<double>(ahead));
  }
  const double seconds = watch.seconds();
  const auto samples = static_cast<double>(steps * settings.batch);
  const double bytes =
      samples * static_cast<double>(settings.sequence_length + 1) * (manifest.vocab_size <= 65536 ? 2 : 4);
  // Without a pace there is nothing between steps that reading could be hidden behind: all that they do is wait.
  const auto others =
      settings.pace > 0 ? fmt::format(", the others {}", format_duration(loader.wait_seconds() - first_wait))
                        : "";
  fmt::print("load, {}: {} samples/s, {} tokens/s, {} GB/s of tokens; in {} the first step waited {}{}\n",
             cache, format_fixed(samples / seconds, 0),
             format_count(samples * static_cast<double>(settings.sequence_length) / seconds),
             format_fixed(bytes / seconds / 1e9, 3), format_duration(seconds), format_duration(first_wait),
             others);
}

void bench_loader(const Settings& settings) {
  const fs::path directory = settings.inputs.front();
  const auto manifest = data::read_manifest(directory);
  fmt::print("{}: {} in {}; sequences of {}, {}\n", directory.string(),
             counted(manifest.tokens(data::Split::train), "token"), counted(manifest.train.size(), "shard"),
             settings.sequence_length, settings.sampling);
  std::int64_t bytes = 0;
  drop_from_cache(directory, manifest);
  const double cold = read_plainly(directory, manifest, bytes);
  const double warm = read_plainly(directory, manifest, bytes);
  fmt::print("plain read: {} GB/s cold, {} GB/s warm\n", format_fixed(double(bytes) / cold / 1e9, 3),
             format_fixed(double(bytes) / warm / 1e9, 3));
  drop_from_cache(directory, manifest);
  load_for_a_while(settings, directory, manifest, "cold");
  read_plainly(directory, manifest, bytes);
  load_for_a_while(settings, directory, manifest, "warm");
}

}  // namespace

int data_bench_command(const Arguments& args) {
  Settings settings;
  po::options_description options("options");
  auto add = options.add_options();
  add("tokenizer", po::value(&settings.tokenizer)->value_name("MODEL"), "tokenize with this");
  add("text-key", po::value(&settings.text_key)->value_name("KEY"), "as for prepare");
  add("sequence-length", po::value(&settings.sequence_length)->value_name("T"), "inputs a sample (4096)");
  add("batch", po::value(&settings.batch)->value_name("B"), "samples a step (64)");
  add("sampling", po::value(&settings.sampling)->value_name("ordered|random|shuffled"), "default: shuffled");
  add("seconds", po::value(&settings.seconds)->value_name("S"),
      "for each of the cold and the warm cache (5)");
  add("pace", po::value(&settings.pace)->value_name("TOKENS/S"),
      "take steps at this rate; 0 is as fast as can be");
  const Positional input{"input", -1, po::value(&settings.inputs), "files or a dataset are missing", "PATH"};
  if (!parse_command_line(args, options, input, {data_bench_help, ""})) return 0;
  if (settings.sequence_length < 1 || settings.batch < 1)
    fail("--sequence-length {} and --batch {} must be positive", settings.sequence_length, settings.batch);
  constexpr std::int64_t most_tokens = std::int64_t{1}
                                       << 28;  // some GiB of memory for the steps that are read ahead
  if (settings.batch > most_tokens / settings.sequence_length)
    fail("--batch {} of --sequence-length {}: a step of more than {} tokens; lower the one or the other",
         settings.batch, settings.sequence_length, most_tokens);
  if (!(settings.seconds > 0) || !(settings.pace >= 0))
    fail("--seconds must be positive, and --pace not negative");
  parse_sampling(settings.sampling);
  if (settings.tokenizer.empty()) {
    bench_loader(settings);
  } else {
    bench_tokenizer(settings);
  }
  return 0;
}

}  // namespace ratplus::apps
