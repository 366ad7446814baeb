// ratplus bench: how fast the operations of a layer are on this machine, and how far from their floors.
#include <fmt/core.h>

#include "apps/command_line.h"
#include "kernels/error.h"
#include "lib/bench/ops_bench.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus bench ops [options]

Times the operations of one layer, forward and backward (median of several calls), on this machine.
The floor of an operation is the larger of two times: the operations that it must do over the rate
of a large matrix product, and the bytes that it must move (each tensor once) over the bandwidth of a
large copy; both ceilings are measured first. What is far above its floor can be made faster.

)";

constexpr const char* help_end = R"(
example:
  ratplus bench ops --tokens 4096 --width 512 --head-dim 128 --threads 1
)";

void print_times(const std::vector<bench::OpTime>& times, const bench::Ceilings& ceilings) {
  fmt::print("ceilings: products {:.0f} GFLOP/s, copies {:.1f} GB/s\n\n", ceilings.product_rate / 1e9,
             ceilings.bandwidth / 1e9);
  fmt::print("{:<28}{:>12}{:>14}{:>12}{:>8}{:>12}{:>10}\n", "operation", "forward ms", "backward ms",
             "floor ms", "ratio", "GFLOP/s", "GB/s");
  for (const auto& time : times) {
    const double both = time.forward + time.backward;
    fmt::print("{:<28}{:>12.3f}{:>14.3f}{:>12.3f}{:>8.2f}{:>12.1f}{:>10.1f}\n", time.name, time.forward * 1e3,
               time.backward * 1e3, time.floor(ceilings) * 1e3, both / time.floor(ceilings),
               time.operations / both / 1e9, time.bytes / both / 1e9);
  }
}

}  // namespace

int bench_command(const Arguments& args) {
  bench::OpsBenchSettings settings;
  std::string what;
  int threads = 0;
  po::options_description options("options");
  const auto size = [](std::int64_t& value) {
    return po::value(&value)->default_value(value)->value_name("N");
  };
  options.add_options()("batch", size(settings.batch), "sequences")(
      "tokens", size(settings.tokens), "tokens a sequence")("width", size(settings.width), "model width d")(
      "head-dim", size(settings.head_dim), "channels a head")("vocab", size(settings.vocab_size),
                                                              "vocabulary")(
      "threads", po::value(&threads)->default_value(0)->value_name("N"), "CPU threads; 0: OpenMP's default");
  const Positional subject{"what", 1, po::value(&what), "say what to time: ops"};
  if (!parse_command_line(args, options, subject, {help_text, help_end})) return 0;
  if (what != "ops") throw po::error(fmt::format("\"{}\" cannot be timed; ops can", what));
  for (const auto value :
       {settings.batch, settings.tokens, settings.width, settings.head_dim, settings.vocab_size}) {
    if (value < 1) fail("bench: the size {} is not positive", value);
  }
  if (settings.width % settings.head_dim != 0 || settings.head_dim % 2 != 0) {
    fail("bench: --width {} must be a multiple of --head-dim {}, which must be even", settings.width,
         settings.head_dim);
  }
  const auto ops = make_cpu_ops(threads);
  fmt::print("one layer: {} x {} tokens, width {}, {} heads of {}, float32, {}\n", settings.batch,
             settings.tokens, settings.width, settings.width / settings.head_dim, settings.head_dim,
             to_string(ops->device()));
  const auto ceilings = bench::measure_ceilings(*ops);
  print_times(bench::time_ops(*ops, settings), ceilings);
  return 0;
}

}  // namespace ratplus::apps
