// Every file of configs/ is a valid job, says what it is, and has the sizes of the paper.
#include <doctest/doctest.h>

#include <fmt/core.h>

#include <fstream>
#include <map>
#include <sstream>

#include "lib/model/mixers.h"
#include "lib/model/parameters.h"
#include "tests/config/cases.h"

namespace ratplus::config {
namespace {

/// Job files by their path below configs/.
std::map<std::string, std::filesystem::path> config_files() {
  std::map<std::string, std::filesystem::path> files;
  const std::filesystem::path root = source_directory() / "configs";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() == ".toml")
      files[entry.path().lexically_relative(root).string()] = entry.path();
  }
  return files;
}

std::string text_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

JobConfig load(const std::string& name) {
  return load_job(config_files().at(name), {});
}

/// As in docs/model.md, section 20: in_proj, out_proj d^2, fc1 and fc2 4 d^2 each, two norms, the bias of a gate; the
/// embedding and the last norm.
std::int64_t parameters(const model::ModelConfig& model) {
  const std::int64_t d = model.width;
  std::int64_t count = model.vocab_size * d + d;
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    std::int64_t rows = 0, bias = 0;
    const model::MixerConfig& mixer = model.mixer(layer);
    switch (mixer.kind) {
      case model::MixerKind::ratplus:
        rows = 5 * d;
        break;
      case model::MixerKind::gated_attention:
        rows = 4 * d;
        break;
      case model::MixerKind::rat:
        rows = 3 * d + 2 * mixer.groups * model.head_dim, bias = d;
        break;
      case model::MixerKind::rnn:
        rows = 3 * d, bias = d;
        break;
      case model::MixerKind::attention:
      case model::MixerKind::local_attention:
        rows = 3 * d;
        break;
    }
    count += (rows + d + 8 * d) * d + 2 * d + bias;
  }
  return count;
}

std::string with_commas(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

TEST_CASE("every job file is valid, round-trips, and begins with what it is and how to run it") {
  const auto files = config_files();
  CHECK(files.size() == 39);
  for (const auto& entry : files) {
    const auto& name = entry.first;
    const auto& file = entry.second;
    CAPTURE(name);
    const JobConfig job = load_job(file, {});
    CHECK(parse_job(to_toml(job), name) == job);
    const std::string text = text_of(file);
    CHECK(text.rfind("# ", 0) == 0);
    CHECK(text.find("# Source: ") != std::string::npos);
    CHECK(text.find("# Parameters: " + with_commas(parameters(job.model)) + "\n") != std::string::npos);
    CHECK(text.find("ratplus train configs/" + name) != std::string::npos);
  }
}

TEST_CASE("run directories differ, and adaptation begins where pretraining ended") {
  std::map<std::string, std::string> users;
  for (const auto& entry : config_files()) {
    const auto& name = entry.first;
    const auto& file = entry.second;
    const JobConfig job = load_job(file, {});
    CHECK_MESSAGE(users.emplace(job.job.directory, name).second, name << " writes to " << job.job.directory);
  }
  for (const auto& entry : config_files()) {
    const auto& name = entry.first;
    const auto& file = entry.second;
    const JobConfig job = load_job(file, {});
    if (job.job.kind != Kind::adapt) continue;
    REQUIRE_MESSAGE(users.count(job.job.from) == 1, name);
    const JobConfig before = load(users[job.job.from]);
    CHECK_MESSAGE(job.model == before.model, name);
    CHECK_MESSAGE(job.data.batch == before.data.batch, name);
    CHECK_MESSAGE(job.data.sequence_length == before.data.sequence_length, name);
    CHECK(job.data.sampling == data::Sampling::random);
  }
}

TEST_CASE("sizes, tokens, batches and learning rates are those of the paper") {
  struct Row {
    const char* size;
    std::int64_t layers, width, parameters, batch, steps;
    double peak_lr;
  };
  const Row rows[] = {{"1b", 24, 2048, 1'474'922'496, 512, 52453, 8e-4},
                      {"3b", 28, 2560, 2'651'077'120, 640, 41962, 7e-4},
                      {"3b-200b", 28, 2560, 2'651'077'120, 768, 63579, 7e-4},
                      {"7b", 32, 4096, 7'647'531'008, 768, 34969, 6e-4}};
  for (const Row& row : rows) {
    CAPTURE(row.size);
    const JobConfig job = load(std::string("pretrain/") + row.size + ".toml");
    CHECK(job.model.layers == row.layers);
    CHECK(job.model.width == row.width);
    CHECK(job.model.head_dim == 128);
    CHECK(parameters(job.model) == row.parameters);
    CHECK(job.data.batch == row.batch);
    CHECK(job.schedule.steps == row.steps);
    CHECK(job.schedule.peak_lr == row.peak_lr);
    CHECK(job.schedule.warmup == 0.05);
    CHECK(job.schedule.floor_lr == 1e-6);
    CHECK(job.optimizer == OptimizerSection{0.9, 0.95, 1e-8, 0.1, 1.0});
    CHECK(job.job.recipe == Recipe::joint);
    CHECK(job.job.pattern == model::PatternPlan());
    CHECK(job.job.joint_pattern == model::PatternPlan(Pattern{64, 0, 0}));
  }
}

TEST_CASE("attention baselines differ from RAT+ in the mixer, the recipe and the directory alone") {
  for (const char* size : {"1b", "3b", "7b"}) {
    CAPTURE(size);
    const auto baseline = [&](const char* suffix) {
      return load(std::string("pretrain/") + size + suffix + ".toml");
    };
    const JobConfig ratplus = baseline("");
    const auto like_ratplus = [&](JobConfig job) {
      CHECK(job.model.mixers == std::vector<model::MixerConfig>{{model::MixerKind::gated_attention}});
      job.model.mixers = ratplus.model.mixers;
      job.job = ratplus.job;
      job.log.validation_patterns = ratplus.log.validation_patterns;
      return job == ratplus;
    };
    const JobConfig dense = baseline("-attention");
    const JobConfig joint = baseline("-attention-joint");
    const JobConfig window = baseline("-attention-window");
    CHECK(like_ratplus(dense));
    CHECK(like_ratplus(joint));
    CHECK(like_ratplus(window));
    CHECK(dense.job.recipe == Recipe::plain);
    CHECK(joint.job.recipe == Recipe::joint);
    CHECK(joint.job.joint_pattern == model::PatternPlan(Pattern{64, 0, 0}));
    CHECK(window.job.recipe == Recipe::joint);
    CHECK(window.job.joint_pattern == model::PatternPlan(Pattern{Pattern::no_dilation, 64, 0}));
  }
}

TEST_CASE("the RAT family's jobs are those of its paper") {
  using model::MixerKind;
  const model::MixerConfig attention{.kind = MixerKind::attention};
  const model::MixerConfig local{.kind = MixerKind::local_attention, .window = 1024};
  const model::MixerConfig rat{.kind = MixerKind::rat, .chunk = 16, .groups = 2};
  const model::MixerConfig rnn{.kind = MixerKind::rnn, .memory = 4096};
  struct Row {
    const char* name;
    model::MixerConfig even, odd;
    std::int64_t parameters;
  };
  for (const Row& row :
       {Row{"attention-xl", attention, attention, 1'273'595'904}, Row{"rat-xl", rat, rat, 1'298'810'880},
        Row{"rnn-xl", rnn, rnn, 1'273'645'056}, Row{"attention-local-xl", attention, local, 1'273'595'904},
        Row{"rat-local-xl", rat, local, 1'286'203'392}}) {
    CAPTURE(row.name);
    const JobConfig job = load(fmt::format("pretrain/{}.toml", row.name));
    CHECK(model::parameter_count(job.model) == row.parameters);
    CHECK(parameters(job.model) == row.parameters);
    for (std::int64_t layer = 0; layer < 24; ++layer)
      CHECK(job.model.mixer(layer) == (layer % 2 == 0 ? row.even : row.odd));
    CHECK(job.model.layers == 24);
    CHECK(job.model.heads() == 16);
    CHECK(job.job.recipe == Recipe::plain);
    CHECK(job.data.batch == 512);
    CHECK(job.schedule.steps * job.tokens_per_step() == 109'999'816'704);
    CHECK(job.schedule.peak_lr == 8e-4);
    CHECK(job.schedule.warmup == 0.05);
    CHECK(job.schedule.floor_lr == 1e-6);
    CHECK(job.optimizer == OptimizerSection{0.9, 0.95, 1e-8, 0.1, 1.0});

    const JobConfig tuned = load(fmt::format("finetune/{}.toml", row.name));
    CHECK(tuned.model == job.model);
    CHECK(tuned.job.from == job.job.directory);
    CHECK(tuned.data.batch == 128);
    CHECK(tuned.data.sampling == data::Sampling::random);
    CHECK(tuned.schedule.epochs == 1);
    CHECK(tuned.schedule.peak_lr == 1e-5);
    CHECK(tuned.optimizer.weight_decay == 0.01);
  }
}

TEST_CASE("adaptation is that of the paper") {
  struct Row {
    const char* size;
    double peak_lr, warmup;
  };
  for (const Row& row : {Row{"1b", 8e-5, 0}, Row{"3b", 7e-5, 0}, Row{"7b", 2e-5, 0.02}}) {
    CAPTURE(row.size);
    const JobConfig job = load(std::string("adapt/") + row.size + ".toml");
    CHECK(job.job.recipe == Recipe::plain);
    CHECK(job.job.pattern == model::PatternPlan(Pattern{16, 256, 4}));
    CHECK(job.schedule.tokens == 1'000'000'000);
    CHECK(job.schedule.peak_lr == row.peak_lr);
    CHECK(job.schedule.warmup == row.warmup);
    CHECK(job.schedule.floor_lr == 1e-6);
  }
}

TEST_CASE("the jobs divide over the usual numbers of ranks") {
  for (const auto& entry : config_files()) {
    const auto& name = entry.first;
    const auto& file = entry.second;
    const JobConfig job = load_job(file, {});
    const bool small = name.starts_with("quickstart/");
    const bool single = name.starts_with("reproduce/");  // jobs/reproduce.sh cuts micro-batches for more
    const auto usual = single  ? std::vector<int>{1}
                       : small ? std::vector<int>{1, 2}
                               : std::vector<int>{8, 16, 32, 64};
    for (const int ranks : usual) {
      if (ranks <= job.data.batch) CHECK_NOTHROW(validate_ranks(job, ranks));
    }
  }
}

}  // namespace
}  // namespace ratplus::config
