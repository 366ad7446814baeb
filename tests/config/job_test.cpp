#include <doctest/doctest.h>

#include <map>

#include <limits>

#include "lib/config/keys.h"
#include "lib/config/mixer_toml.h"
#include "tests/config/cases.h"
#include "tests/support/messages.h"

namespace ratplus::config {
namespace {

TEST_CASE("defaults are those of job.h") {
  JobConfig expected;
  expected.job.directory = "runs/a";
  expected.data.directory = "runs/a/data";
  expected.schedule.steps = 100;
  expected.log.validation_patterns = {model::PatternPlan(Pattern{1, 0, 0})};
  CHECK(parse_job(minimal_job, "job.toml") == expected);
}

TEST_CASE("every key is read into its field") {
  const JobConfig job = parse_job(R"([job]
kind = "adapt"
recipe = "joint"
directory = "runs/b"
from = "runs/a"
seed = 9007199254740993
device = "cuda"
precision = "f32"
deterministic = false
recompute = "block"
threads = 3
pattern = "16,256,4"
joint_pattern = "none,64,0"
[model]
layers = 2
width = 96
head_dim = 32
kv_heads = 1
vocab_size = 300
recurrence = false
rope_base = 500000
norm_eps = 1e-5
init_std = 0.01
[data]
directory = "d"
sequence_length = 128
batch = 24
micro_batch = 6
sampling = "random"
prefetch = 5
[optimizer]
beta1 = 0.8
beta2 = 0.99
eps = 1e-9
weight_decay = 0
clip = 0.5
[schedule]
steps = 1_000
peak_lr = 3e-4
floor_lr = 0
warmup = 0
[parallel]
shard = "full"
shard_group = 2
prefetch = 3
keep_weights = true
reduce = "bf16"
timeout = 7.5
ranks = 2
[checkpoint]
every = 50
keep = 7
keep_every = 200
directory = "/scratch/b"
background = false
export = "bfloat16"
[log]
every = 1
validate_every = 25
validation_sequences = 9
validation_patterns = ["dense", "64,0,4"]
[health]
not_finite = "skip"
max_skips = 3
straggler = 0.5
slowdown = 0
data_wait = 0.25
compare_every = 7
differing = "go_back"
)",
                                  "job.toml");
  JobConfig expected;
  expected.job = {Kind::adapt,
                  Recipe::joint,
                  "runs/b",
                  "runs/a",
                  9007199254740993,
                  DeviceChoice::cuda,
                  DType::f32,
                  false,
                  model::Recompute::block,
                  3,
                  model::PatternPlan(Pattern{16, 256, 4}),
                  model::PatternPlan(Pattern{Pattern::no_dilation, 64, 0})};
  expected.model = {2, 96, 32, 1, 300, {{model::MixerKind::gated_attention}}, 500000, 1e-5, 0.01};
  expected.data = {"d", {}, 128, 24, 6, false, data::Sampling::random, 5};
  expected.optimizer = {0.8, 0.99, 1e-9, 0, 0.5};
  expected.schedule = {1000, 0, 3e-4, 0, 0};
  expected.parallel = {{parallel::Sharding::full, 2, 3, true, parallel::Reduce::bf16, 7.5}, 2, false};
  expected.checkpoint = {50, 7, 200, "/scratch/b", false, Export::bfloat16};
  expected.log = {1, 25, 9, {model::PatternPlan(Pattern{}), model::PatternPlan(Pattern{64, 0, 4})}};
  expected.log.validation_patterns.push_back(expected.job.pattern);  // always among them
  expected.health = {NotFinite::skip, 3, 0.5, 0, 0.25, 7, Differing::go_back};
  CHECK(job == expected);
  CHECK(job.source == "job.toml");
  CHECK(parse_job(to_toml(job), "again") == job);
}

TEST_CASE("\"auto\" is read and written, and what it stands for is safe until it is chosen") {
  const auto job = parse_job(minimal_job, "job.toml", {"data.micro_batch=auto", "parallel.shard=auto"});
  CHECK(job.chooses());
  CHECK(job.data.micro_batch == 1);
  CHECK(job.parallel.shard == parallel::Sharding::none);
  CHECK(to_toml(job).find("micro_batch = \"auto\"") != std::string::npos);
  CHECK(to_toml(job).find("shard = \"auto\"") != std::string::npos);
  CHECK(parse_job(to_toml(job), "again") == job);
  const auto chosen = parse_job(to_toml(job), "again", {"data.micro_batch=4", "parallel.shard=full"});
  CHECK_FALSE(chosen.chooses());
  CHECK(chosen.data.micro_batch == 4);
  CHECK(chosen.parallel.shard == parallel::Sharding::full);
}

TEST_CASE("steps follow from tokens, rounded up") {
  const std::vector<std::string> small = {"data.batch=10", "data.sequence_length=100"};
  const auto steps_for = [&](const std::string& tokens) {
    std::vector<std::string> overrides = small;
    overrides.push_back("schedule.tokens=" + tokens);
    return parse_job(minimal_job, "job.toml", overrides).schedule.steps;
  };
  CHECK(steps_for("1000") == 1);
  CHECK(steps_for("1001") == 2);
  CHECK(steps_for("1") == 1);
  CHECK(steps_for("110e9") == 110'000'000);
  CHECK(steps_for("110_000_000_001") == 110'000'001);
}

TEST_CASE("an integer may be written as an exact float, and as no other") {
  const auto tokens = [](const std::string& text) {
    return parse_job(minimal_job, "job.toml", {"schedule.tokens=" + text}).schedule.tokens;
  };
  CHECK(tokens("110e9") == 110'000'000'000);
  CHECK(tokens("110_000_000_000") == 110'000'000'000);
  CHECK(tokens("9007199254740992.0") == 9007199254740992);
  CHECK(refusal(minimal_job, {"schedule.tokens=1.0000001e6"}) ==
        "--set schedule.tokens=1.0000001e6: schedule.tokens must be an integer, not the float 1000000.1");
  CHECK(refusal(minimal_job, {"schedule.tokens=1e16"}) ==
        "--set schedule.tokens=1e16: schedule.tokens must be an integer, not the float 1e+16");
}

TEST_CASE("overrides replace what the file says") {
  const JobConfig job = parse_job(
      minimal_job + "batch = 64\n", "job.toml",
      {"data.batch=32", "data.batch = 128", "data.sampling=random", "data.directory=/data/a b#c=d",
       "job.directory=2026", "model.recurrence=false", "optimizer.clip=inf", "job.pattern=16,256,4"});
  CHECK(job.data.batch == 128);
  CHECK(job.data.sampling == data::Sampling::random);
  CHECK(job.data.directory == "/data/a b#c=d");
  CHECK(job.job.directory == "2026");
  CHECK(job.model.mixers == std::vector<model::MixerConfig>{{model::MixerKind::gated_attention}});
  CHECK(job.optimizer.clip == std::numeric_limits<double>::infinity());
  CHECK(job.job.pattern == model::PatternPlan(Pattern{16, 256, 4}));
  CHECK(parse_job(minimal_job, "job.toml", {"job.directory=\"a\\\"b\""}).job.directory == "a\"b");
}

TEST_CASE("an override takes the place of the key that it excludes") {
  const std::string joint =
      "[job]\ndirectory = \"r\"\nrecipe = \"joint\"\njoint_pattern = \"32,0,0\"\n"
      "[data]\ndirectory = \"d\"\n[schedule]\ntokens = 1e9\n";
  const JobConfig by_steps = parse_job(joint, "job.toml", {"schedule.steps=7"});
  CHECK(by_steps.schedule.steps == 7);
  CHECK(by_steps.schedule.tokens == 0);
  const JobConfig plain = parse_job(joint, "job.toml", {"job.recipe=plain"});
  CHECK(plain.job.joint_pattern == JobSection{}.joint_pattern);
  const std::string adapt =
      "[job]\nkind = \"adapt\"\ndirectory = \"r\"\nfrom = \"p\"\n"
      "[data]\ndirectory = \"d\"\n[schedule]\ntokens = 1e9\n";
  CHECK(parse_job(adapt, "job.toml", {"job.kind=pretrain"}).job.from.empty());
  // Two overrides that exclude each other remain a contradiction.
  CHECK(refusal(joint, {"schedule.steps=7", "schedule.tokens=1e6"}) ==
        "--set schedule.steps=7: schedule.steps and schedule.tokens (at --set schedule.tokens=1e6) are both "
        "given; remove one of them");
}

TEST_CASE("validation patterns are the recipe's own unless given") {
  const model::PatternPlan dense;
  const model::PatternPlan sparse(Pattern{64, 0, 0});
  using Plans = std::vector<model::PatternPlan>;
  CHECK(parse_job(minimal_job, "j").log.validation_patterns == Plans{dense});
  CHECK(parse_job(minimal_job, "j", {"job.recipe=joint"}).log.validation_patterns == Plans{dense, sparse});
  CHECK(parse_job(minimal_job, "j", {"job.recipe=joint", "job.pattern=64,0,0"}).log.validation_patterns ==
        Plans{sparse});
  CHECK(parse_job(minimal_job, "j", {"log.validation_patterns=[\"64,0,0\"]"}).log.validation_patterns ==
        Plans{sparse, dense});
}

TEST_CASE("a written job reads back as the same job") {
  JobConfig job = parse_job(minimal_job, "job.toml");
  CHECK(parse_job(to_toml(job), "again") == job);

  job.job.directory = "a \"quoted\" \\ path\twith\nbreaks \x7f and \xc3\xa9";
  for (const double x : {0.1, 1.0 / 3, 5e-324, 1e-8, 1e22, 123456789.123, 1.0}) {
    job.optimizer.eps = x;
    job.model.norm_eps = x;
    CHECK(parse_job(to_toml(job), "again") == job);
  }
  job.optimizer.clip = std::numeric_limits<double>::infinity();
  job.job.seed = std::numeric_limits<std::int64_t>::max();
  CHECK(parse_job(to_toml(job), "again") == job);

  const JobConfig by_tokens = parse_job(minimal_job, "job.toml", {"schedule.tokens=12345678901"});
  CHECK(by_tokens.schedule.steps == 5887);  // 12345678901 / (512 x 4096), rounded up
  CHECK(parse_job(to_toml(by_tokens), "again") == by_tokens);
}

TEST_CASE("the written job has every key that applies") {
  const std::vector<std::string> overrides = {"job.recipe=joint", "job.kind=adapt", "job.from=p",
                                              "schedule.shape=wsd"};
  const std::string text = to_toml(parse_job(minimal_job, "job.toml", overrides));
  for (const SectionKeys& section : known_keys()) {
    CHECK(text.find("[" + section.section + "]\n") != std::string::npos);
    for (const std::string& key : section.keys) {
      const bool expected =
          !(section.section == "schedule" && key == "tokens") && key != "sources" && key != "epochs";
      CHECK_MESSAGE((text.find("\n" + key + " = ") != std::string::npos) == expected,
                    section.section << "." << key);
    }
  }
}

TEST_CASE("fine-tuning has its own defaults, and epochs") {
  const std::string text =
      "[job]\nkind = \"finetune\"\nfrom = \"runs/adapt\"\ndirectory = \"a\"\n[data]\ndirectory = \"d\"\n";
  const JobConfig job = parse_job(text, "job.toml");
  CHECK(job.data.batch == 32);
  CHECK(job.data.sampling == data::Sampling::shuffled);
  CHECK(job.optimizer.weight_decay == 0.01);
  CHECK(job.schedule.peak_lr == 1e-5);
  CHECK(job.schedule.warmup == 0.05);
  CHECK(job.schedule.epochs == 4);
  CHECK(job.schedule.steps == 0);
  CHECK(parse_job(to_toml(job), "again") == job);
  const JobConfig other = parse_job(text, "job.toml", {"schedule.epochs=2", "data.batch=8"});
  CHECK(other.schedule.epochs == 2);
  CHECK(other.data.batch == 8);
  CHECK(parse_job(text, "job.toml", {"schedule.steps=7"}).schedule.epochs == 0);
  CHECK(parse_job(minimal_job, "job.toml", {"schedule.epochs=3"}).schedule.steps == 0);
  CHECK(refusal(text + "[schedule]\nsteps = 1\nepochs = 2\n").find("are both given") != std::string::npos);
  CHECK(refusal(minimal_job, {"job.kind=finetune"}).find("job.from is missing") != std::string::npos);
}

TEST_CASE("several sources: read, written, set, and taken in the place of the directory") {
  const std::string text = R"([job]
directory = "runs/a"
[data]
sources = [{ directory = "data/web", weight = 0.7 }, { directory = "data/code" }]
[schedule]
steps = 100
)";
  const JobConfig job = parse_job(text, "job.toml");
  const std::vector<DataSource> expected{{"data/web", 0.7}, {"data/code", 1}};
  CHECK(job.data.sources == expected);
  CHECK(job.data.all_sources() == expected);
  CHECK(parse_job(to_toml(job), "again") == job);
  const JobConfig one = parse_job(text, "job.toml", {"data.directory=data/web"});
  CHECK(one.data.all_sources() == std::vector<DataSource>{{"data/web", 1}});
  const JobConfig set =
      parse_job(minimal_job, "job.toml", {"data.sources=[{ directory = \"x\", weight = 2 }]"});
  CHECK(set.data.all_sources() == std::vector<DataSource>{{"x", 2}});
  CHECK(differences(job, set).front() == "data.sources = [x: 2] (was [data/web: 0.7, data/code: 1])");
}

TEST_CASE("several sources: what is wrong is named") {
  const auto message = [](const std::string& value) {
    return refusal("[job]\ndirectory = \"a\"\n[schedule]\nsteps = 1\n[data]\nsources = " + value + "\n");
  };
  CHECK(message("[]") ==
        "job.toml:6: data.sources is an empty list; give at least one source, or data.directory");
  CHECK(message("[{ directory = \"a\", weight = 0 }]") ==
        "job.toml:6: data.sources[0].weight must be greater than 0 and finite, not 0");
  CHECK(message("[{ weight = 1 }]").find("data.sources[0] has no directory") != std::string::npos);
  CHECK(message("[{ directory = \"a\", wieght = 1 }]").find("did you mean weight?") != std::string::npos);
  CHECK(message("[{ directory = \"a\" }, { directory = \"a\" }]").find("names a twice") != std::string::npos);
  CHECK(message("[3]").find("must be a source") != std::string::npos);
  CHECK(message("[{ directory = \"a\" }]\ndirectory = \"b\"").find("are both given") != std::string::npos);
}

TEST_CASE("old names of keys are read: the job is the same, and a line names the present one") {
  const std::string text =
      "[job]\ndirectory = \"r\"\n[data]\ndirectory = \"d\"\nwindow = 128\n[schedule]\nsteps = 3\n"
      "[checkpoint]\ndtype = \"float32\"\ndir = \"c\"\n";
  std::string present = text;
  const auto rename = [&present](const std::string& old, const std::string& name) {
    present.replace(present.find(old), old.size(), name);
  };
  rename("window", "sequence_length");
  rename("dtype", "export");
  rename("dir = \"c\"", "directory = \"c\"");
  const JobConfig job = parse_job(text, "job.toml");
  CHECK(job == parse_job(present, "job.toml"));
  CHECK(to_toml(job) == to_toml(parse_job(present, "job.toml")));
  CHECK(parse_job(present, "job.toml").renamed.empty());
  CHECK(job.data.sequence_length == 128);
  CHECK(job.renamed == std::vector<std::string>{"job.toml:5: data.window is now data.sequence_length",
                                                "job.toml:9: checkpoint.dtype is now checkpoint.export",
                                                "job.toml:10: checkpoint.dir is now checkpoint.directory"});
  const JobConfig set = parse_job(present, "job.toml", {"data.window=64", "checkpoint.dtype=none"});
  CHECK(set.data.sequence_length == 64);
  CHECK(set.checkpoint.export_type == Export::none);
  CHECK(set.renamed ==
        std::vector<std::string>{"--set data.window=64: data.window is now data.sequence_length",
                                 "--set checkpoint.dtype=none: checkpoint.dtype is now checkpoint.export"});
}

TEST_CASE("the two names of one key do not go together in a file, and suggestions have the present one") {
  const std::string start = "[job]\ndirectory = \"r\"\n[schedule]\nsteps = 3\n[data]\ndirectory = \"d\"\n";
  const auto refusal = [&start](const std::string& rest) {
    return test::message_of([&] { parse_job(start + rest, "job.toml"); });
  };
  CHECK(
      refusal("window = 8\nsequence_length = 8\n") ==
      "job.toml:8: data.sequence_length and data.window (at job.toml:7) are two names of one key; remove the "
      "one with the old name, data.window");
  CHECK(
      refusal("sequence_length = 8\nwindow = 8\n") ==
      "job.toml:8: data.window and data.sequence_length (at job.toml:7) are two names of one key; remove the "
      "one with the old name, data.window");
  CHECK(test::contains(refusal("windw = 8\n"), "did you mean data.sequence_length?"));
  CHECK(test::contains(refusal("[schedule]\n"), "once"));
  CHECK(test::contains(refusal("sequence_lenght = 8\n"), "did you mean data.sequence_length?"));
  CHECK(test::contains(refusal("[log]\nwindow = 8\n"), "did you mean data.sequence_length?"));
  // A mistake in the value names the present key, at the place of the old one.
  CHECK(refusal("window = 0\n") == "job.toml:7: data.sequence_length must be 1 to 10000000, not 0");
}

TEST_CASE("model.mixer takes a name, a table, a list and a rule") {
  using model::MixerConfig;
  using model::MixerKind;
  const auto mixers = [](const std::string& value) {
    return parse_job(std::string(minimal_job) + "[model]\nlayers = 5\nmixer = " + value + "\n", "job.toml")
        .model.mixers;
  };
  const MixerConfig attention{.kind = MixerKind::attention};
  const MixerConfig local{.kind = MixerKind::local_attention, .window = 7};
  const MixerConfig rat{.kind = MixerKind::rat, .chunk = 8, .groups = 4};
  CHECK(mixers("\"attention\"") == std::vector{attention});
  CHECK(mixers("\"rat\"") == std::vector{MixerConfig{.kind = MixerKind::rat, .chunk = 16, .groups = 2}});
  CHECK(mixers("\"rnn\"") == std::vector{MixerConfig{.kind = MixerKind::rnn, .memory = 4096}});
  CHECK(mixers("{ kind = \"rat\", chunk = 8, groups = 4 }") == std::vector{rat});
  CHECK(mixers("{ global = \"attention\", local = { kind = \"local_attention\", window = 7 }, every = 3 }") ==
        std::vector{attention, local, local, attention, local});
  for (const auto& entry :
       std::map<std::string, std::vector<MixerConfig>>{{"one", {rat}},
                                                       {"rule", {rat, local, rat, local, rat}},
                                                       {"list", {rat, rat, local, rat, attention}}}) {
    const auto& name = entry.first;
    const auto& value = entry.second;
    CAPTURE(name);
    CAPTURE(to_toml_value(value));
    CHECK(mixers(to_toml_value(value)) == value);
    CHECK(parse_mixers(to_toml_value({rat}), "--mixer") == std::vector{rat});
  }
  CHECK(parse_mixers("attention", "--mixer") == std::vector{attention});
}

TEST_CASE("one head of keys for each head of queries is no sharing") {
  const auto kv_heads = [](const std::string& value) {
    return parse_job(std::string(minimal_job) + "[model]\nkv_heads = " + value + "\n", "job.toml")
        .model.kv_heads;
  };
  CHECK(kv_heads("16") == 0);
  CHECK(kv_heads("4") == 4);
}

}  // namespace
}  // namespace ratplus::config
