// ratplus convert: a model's weights from one format to another.
#include "lib/weights/convert.h"
#include "base/units.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/output.h"
#include "apps/progress_line.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/config/mixer_toml.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* convert_help = R"(usage: ratplus convert SRC DST [options]

Writes the weights of SRC to DST, in another format, another type or another number of files. The content
of SRC decides its format, the name of DST that of the result:
  DIR                            a checkpoint, as `ratplus train` writes them: to adapt (job.from), to
                                 evaluate; from a checkpoint the optimizer's state goes along
  FILE.pth (.pt, .bin)           PyTorch: {"task": state dict}, for the reference's load_state_dict
  FILE.safetensors               safetensors, with the model's sizes in its metadata
  NAME.safetensors.index.json    the same in several files, which the index lists
Another suffix of a file's (.gguf) is refused; DIR.NAME/ is a directory. Directories above DST are made.
SRC may also be a run's directory (its newest checkpoint), or one that holds safetensors. No code of a
PyTorch file is executed: it may hold tensors, dictionaries and plain values, in "task" or bare.
The tensors' shapes give every size of the model but two: the channels of a head (--head-dim) and, in the RAT
family, the sizes of its mixer (--mixer).

Memory stays below 1 GiB, whatever the model. DST is complete or absent, also after Ctrl-C.

)";

constexpr const char* convert_help_end = R"(
examples:
  ratplus convert ratplus-1b.pth runs/imported/1b --tokenizer llama2/tokenizer.model
  ratplus convert runs/1b-d16 out/1b-d16.safetensors --dtype bfloat16
  ratplus convert runs/1b/checkpoints/step-00052000 resharded --parts 8
)";

struct ConvertArguments {
  std::vector<std::string> paths;
  std::string dtype;
  std::int64_t head_dim = 0;
  std::int64_t kv_heads = 0;
  std::string mixer;
  double shard_gib = 0;
  std::string tokenizer;
  weights::ExportOptions options;
};

/// Empty when help was asked for and given.
std::optional<ConvertArguments> parse_convert(const Arguments& args) {
  ConvertArguments parsed;
  auto& options = parsed.options;
  po::options_description description("options");
  auto add = description.add_options();
  add("dtype", po::value(&parsed.dtype)->value_name("float32|bfloat16|float16"),
      "of all weights; default: as they are, in a checkpoint float32");
  add("parts", po::value(&options.parts)->value_name("N"), "a checkpoint's number of files; default: 1");
  add("shard-size", po::value(&parsed.shard_gib)->value_name("GIB"),
      "GiB of one file of several, at most; default: 4");
  add("head-dim", po::value(&parsed.head_dim)->value_name("P"),
      "channels of a head, where SRC does not say; default: 128");
  add("kv-heads", po::value(&parsed.kv_heads)->value_name("K"),
      "heads of keys and values, where heads share them and SRC does not say");
  add("mixer", po::value(&parsed.mixer)->value_name("MIXER"),
      "the mixers as a job's model.mixer has them, where SRC does not say: attention, or '{ kind = \"rat\", "
      "chunk = 16, groups = 2 }'; a list that is shorter than the model repeats");
  add("tokenizer", po::value(&parsed.tokenizer)->value_name("MODEL"),
      "the SentencePiece model that the weights were trained with, where SRC does not say: it is noted, so "
      "that data of another tokenizer is refused");
  add("weights-only", po::bool_switch(&options.weights_only),
      "leave the optimizer's state of a checkpoint out");
  add("force", po::bool_switch(&options.force), "replace DST: a file, or a checkpoint's directory");
  const Positional paths{"paths", 2, po::value(&parsed.paths), "SRC and DST are missing", "SRC DST"};
  const auto given = parse_command_line(args, description, paths, {convert_help, convert_help_end});
  if (!given) return std::nullopt;
  if (parsed.paths.size() != 2) throw po::error("DST is missing");
  if (options.parts < 1 || options.parts > 100'000)
    throw po::error(fmt::format("--parts {} is not between 1 and 100000", options.parts));
  if (given->contains("head-dim") && parsed.head_dim < 1)
    throw po::error(fmt::format("--head-dim {} is not positive", parsed.head_dim));
  if (given->contains("kv-heads") && parsed.kv_heads < 1)
    throw po::error(fmt::format("--kv-heads {} is not positive", parsed.kv_heads));
  if (given->contains("shard-size") && !(parsed.shard_gib > 0 && parsed.shard_gib < 1e6))
    throw po::error(fmt::format("--shard-size {} is not positive", parsed.shard_gib));
  if (parsed.shard_gib > 0) options.shard_bytes = static_cast<std::int64_t>(parsed.shard_gib * (1 << 30));
  if (!parsed.dtype.empty()) options.type = checkpoint::parse_stored_type(parsed.dtype, "--dtype");
  weights::require_known_suffix(parsed.paths[1]);
  const auto format = weights::format_of(parsed.paths[1]);
  if (given->contains("parts") && format != weights::Format::checkpoint)
    throw po::error("--parts is for a checkpoint, and DST is to be a file");
  if (given->contains("shard-size") && format != weights::Format::sharded_safetensors)
    throw po::error("--shard-size is for DST = NAME.safetensors.index.json");
  return parsed;
}

/// How far the work has come, and how fast.
class Progress {
 public:
  explicit Progress(std::int64_t bytes) : all_(bytes) {}

  void add(std::int64_t bytes) {
    end_if_interrupted("interrupted");
    done_ += bytes;
    const double passed = seconds();
    if (passed < 1) return;  // done before it can be read
    const double share = static_cast<double>(done_) / static_cast<double>(std::max<std::int64_t>(all_, 1));
    line_.update(fmt::format("converting {} of {}, {:.0f} %, {}/s, {} left", format_bytes(done_),
                             format_bytes(all_), 100 * share, rate(),
                             format_seconds(passed * (1 - share) / share)));
  }
  void finish() { line_.finish(); }
  std::string rate() const {
    return format_bytes(static_cast<std::int64_t>(static_cast<double>(done_) / std::max(seconds(), 1e-3)));
  }
  double seconds() const { return elapsed_.seconds(); }

 private:
  std::int64_t all_;
  std::int64_t done_ = 0;
  ElapsedTime elapsed_;
  ProgressLine line_{5};
};

void print_result(const weights::WeightsSource& source, const std::string& destination,
                  const weights::ExportOptions& options, double seconds) {
  const auto& info = source.info();
  fmt::print("{} ({}): {} parameters, {}, width {}, {} of {}, vocabulary {}, {}\n", info.directory.string(),
             source.format(), model::parameter_count(info.model), counted(info.model.layers, "layer"),
             info.model.width, counted(info.model.heads(), "head"), info.model.head_dim,
             info.model.vocab_size, model::describe_mixers(info.model));
  fmt::print("wrote {} ({}) in {}\n", destination, to_string(weights::format_of(destination)),
             format_duration(seconds));
  if (weights::format_of(destination) == weights::Format::checkpoint && info.tokenizer.empty() &&
      !options.tokenizer) {
    fmt::print(
        "note: which tokenizer the weights were trained with is not known, so that data of another will not "
        "be "
        "refused; --tokenizer tokenizer.model notes it\n");
  }
}

int convert(ConvertArguments args) {
  const std::string& destination = args.paths[1];
  model::ModelConfig assumed;
  if (args.head_dim > 0) assumed.head_dim = args.head_dim;
  assumed.kv_heads = args.kv_heads;
  if (!args.mixer.empty()) assumed.mixers = config::parse_mixers(args.mixer, "--mixer");
  if (!args.tokenizer.empty()) args.options.tokenizer = data::Tokenizer(args.tokenizer).identity();
  const auto source = weights::open_source(args.paths[0], assumed);
  if (args.head_dim > 0 && source->info().model.head_dim != args.head_dim) {
    fail("--head-dim {}: {} says that its heads have {} channels", args.head_dim, args.paths[0],
         source->info().model.head_dim);
  }
  if (args.kv_heads > 0 && source->info().model.key_heads() != args.kv_heads) {
    fail("--kv-heads {}: {} says that it has {}", args.kv_heads, args.paths[0],
         counted(source->info().model.key_heads(), "head of keys", "heads of keys"));
  }
  if (!args.mixer.empty()) {
    for (std::int64_t layer = 0; layer < source->info().model.layers; ++layer) {
      if (source->info().model.mixer(layer) == assumed.mixer(layer)) continue;
      fail("--mixer: layer {} would hold {}, and {} holds {} there", layer, describe(assumed.mixer(layer)),
           args.paths[0], describe(source->info().model.mixer(layer)));
    }
  }
  const StopSignal signal;
  Progress progress(weights::bytes_to_read(*source, destination, args.options));
  args.options.progress = [&](std::int64_t bytes) { progress.add(bytes); };
  try {
    weights::convert(*source, destination, args.options);
    progress.finish();
  } catch (const Interrupted&) {
    progress.finish();
    print_error(fmt::format("interrupted; {} was not finished and what was written is removed", destination));
    return ended_by(StopSignal::received());
  }
  print_result(*source, destination, args.options, progress.seconds());
  return 0;
}

}  // namespace

int convert_command(const Arguments& args) {
  const auto parsed = parse_convert(args);
  if (!parsed) return 0;
  refuse_ranks("convert");
  ignore_lost_readers();
  return convert(*parsed);
}

}  // namespace ratplus::apps
