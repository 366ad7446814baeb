#include "apps/model_options.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "apps/device_options.h"
#include "lib/config/pattern_toml.h"
#include "lib/model/mixers.h"

namespace ratplus::apps {

namespace po = boost::program_options;

std::int64_t parse_size(const std::string& text, const std::string& option) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, value);
  std::string_view unit(read.ptr, static_cast<std::size_t>(end - read.ptr));
  constexpr std::string_view units = "KMGT";
  double factor = 1;
  if (const auto at = unit.empty() ? std::string_view::npos : units.find(unit.front());
      at != std::string_view::npos) {
    factor = std::ldexp(1.0, 10 * (static_cast<int>(at) + 1));
    unit.remove_prefix(1);
    if (unit == "iB" || unit == "B") unit = {};
  } else if (unit == "B") {
    unit = {};
  }
  constexpr double most = 1e15;
  if (read.ec != std::errc{} || !unit.empty() || !(value >= 0) || value * factor > most)
    throw po::error(fmt::format("--{} {} is not a size, such as 512MiB or 4GiB", option, text));
  return static_cast<std::int64_t>(value * factor);
}

std::vector<model::PatternPlan> generation_patterns(const std::vector<std::string>& given,
                                                    const model::ModelConfig& model) {
  std::vector<std::string> texts = given;
  if (texts.empty()) {
    const auto mixers = model.distinct_mixers();
    texts = {"dense"};
    if (std::ranges::none_of(mixers, [](const auto& mixer) { return model::own_pattern(mixer).has_value(); }))
      texts.insert(texts.end(), {"16,0,4", "16,256,4", "64,0,4"});
  }
  std::vector<model::PatternPlan> plans;
  for (const auto& text : texts) {
    plans.push_back(config::parse_plan(text, "--pattern"));
    model::check_pattern(plans.back(), model, "--pattern");
  }
  return plans;
}

void add_engine_options(po::options_description& description, EngineOptions& options) {
  auto add = description.add_options();
  add("slots", po::value(&options.request.slots)->value_name("N"),
      "sequences that a rank computes together at most, under each pattern; default: as many as fit, on a "
      "CPU 64");
  add("prefix-cache", po::value(&options.prefix_cache)->value_name("SIZE"),
      "keep beginnings of prompts in this much memory (512MiB, 4GiB): prompts that begin alike compute them "
      "once; "
      "default: 0");
}

void check_engine_options(const po::variables_map& given, EngineOptions& options) {
  auto& request = options.request;
  constexpr std::int64_t most_slots = std::int64_t{1} << 16;  // beyond all devices: each is planned for
  if (given.contains("slots") && (request.slots < 1 || request.slots > most_slots))
    throw po::error(fmt::format("--slots {} is not a number from 1 to {}", request.slots, most_slots));
  if (!options.prefix_cache.empty()) request.prefix_bytes = parse_size(options.prefix_cache, "prefix-cache");
}

void add_sequence_options(po::options_description& description, ModelOptions& options) {
  auto& request = options.request;
  auto add = description.add_options();
  add("length", po::value(&request.tokens)->value_name("T"),
      "tokens of a sequence at most, prompt and answer; default: as in training");
  add("longer", po::bool_switch(&request.longer), "allow a --length beyond the one in training");
  add("rope-base",
      po::value<double>()->value_name("B")->notifier([&](double base) { request.rope_base = base; }),
      "base of the rotary positions; default: as in training");
  add("rope-scale", po::value(&request.rope_scale)->value_name("S"),
      "divide positions by S, for lengths beyond the one in training; default: 1");
  add("tokenizer", po::value(&options.tokenizer)->value_name("FILE"),
      "the model's tokenizer (a file, or a dataset); default: that of the dataset it was trained on");
  add("end-of-text", po::value(&options.end_of_text)->value_name("TOKEN"),
      "the token that ends a text, if the dataset and the tokenizer's file do not name it");
}

void add_device_options(po::options_description& description, ModelOptions& options) {
  auto& request = options.request;
  auto add = description.add_options();
  add("device", po::value(&options.device)->value_name("auto|cpu|cuda"), "default: as in training");
  add("precision", po::value(&options.precision)->value_name("bf16|f32"),
      "of a GPU's products (default: as in training); on a CPU of matrices (default: bf16 where all are "
      "stored so, else f32)");
  add("threads", po::value(&request.threads)->value_name("N"),
      "CPU threads a rank; default: its share of the cores");
  add("head-dim", po::value(&request.head_dim)->value_name("P"),
      "channels of a head, where a file of weights does not say; default: 128");
}

void check_model_options(const po::variables_map& given, ModelOptions& options) {
  auto& request = options.request;
  constexpr std::int64_t most = 1'000'000'000;  // keeps products of two within 64 bits
  for (const auto& [name, value] : {std::pair{"length", request.tokens}, {"head-dim", request.head_dim}}) {
    if (given.contains(name) && (value < 1 || value > most))
      throw po::error(fmt::format("--{} {} is not a number from 1 to {}", name, value, most));
  }
  if (request.threads < 0) throw po::error(fmt::format("--threads {} is negative", request.threads));
  if (!options.device.empty()) request.device = parse_device(options.device);
  if (!options.precision.empty()) request.precision = parse_precision(options.precision);
}

}  // namespace ratplus::apps
