#include <doctest/doctest.h>

#include <random>

#include "base/error.h"
#include "lib/config/pattern_toml.h"
#include "tests/config/cases.h"

namespace ratplus::config {
namespace {

/// The plan of `job.pattern = <text>` in a model of 4 layers of 2 heads.
const std::vector<std::string> small_model = {"model.layers=4", "model.width=16", "model.head_dim=8"};

model::PatternPlan plan_of(const std::string& text) {
  const std::string line = "[model]\nlayers = 4\nwidth = 16\nhead_dim = 8\n";
  return parse_job("[job]\ndirectory = \"runs/a\"\npattern = " + text + "\n[data]\ndirectory = \"d\"\n" +
                       line + "[schedule]\nsteps = 1\n",
                   "job.toml")
      .job.pattern;
}

void check_refusal(const std::string& text, const std::string& message) {
  CHECK(refusal("[job]\npattern = " + text +
                    "\ndirectory = \"runs/a\"\n[data]\ndirectory = \"d\"\n[schedule]\nsteps = 1\n",
                small_model) == message);
}

TEST_CASE(
    "every name of a pattern that is printed can be given back, on the command line and in a job file") {
  using model::PatternPlan;
  const Pattern dense;
  const Pattern a{64, 0, 0};
  const Pattern b{Pattern::no_dilation, 256, 4};
  const std::vector<PatternPlan> plans = {PatternPlan(),
                                          PatternPlan(a),
                                          PatternPlan(b),
                                          PatternPlan({{a}, {a}, {dense}, {dense}}),
                                          PatternPlan({{a}, {dense}, {a}, {dense}}),
                                          PatternPlan({{a}, {dense}, {b}, {dense}}),
                                          PatternPlan(std::vector<std::vector<Pattern>>{{a, b}}),
                                          PatternPlan({{a, b}, {dense}, {a, b}, {dense}}),
                                          PatternPlan({{a, b}, {b, a}, {b, a}, {dense}})};
  for (const auto& plan : plans) {
    const auto name = plan.describe();
    CAPTURE(name);
    CHECK(parse_plan(name, "--pattern").describe() == name);
    CHECK(plan_of("\"" + name + "\"").describe() == name);
    CHECK(parse_plan(to_toml_value(plan), "--pattern") == plan);
  }
  // Groups that repeat come back whole, not as their name alone.
  CHECK(parse_plan(plans[4].describe(), "--pattern") == plans[4]);
  CHECK(parse_plan(plans[8].describe(), "--pattern") == plans[8]);
  for (const char* bad :
       {"hybrid(", "hybrid(dense)", "hybrid(dense x 0)", "hybrid(dense x 2", "heads(dense x 2))",
        "hybrid((dense x 1, 64,0,0 x 1) x 2000000)", "hybrid(dense x 99999999999999999999)",
        "heads(heads(dense x 2) x 2)", "[dense]", "[\"dense\"", "[\"64,0\"]", "[\"dense\"]\nother = 1", ""}) {
    CAPTURE(std::string(bad));
    bool refused = false;
    try {
      parse_plan(bad, "--pattern");
    } catch (const Error& error) {
      refused = std::string(error.what()).starts_with("--pattern: ");
    }
    CHECK(refused);
  }
}

TEST_CASE("a run's own pattern is always validated") {
  const auto named =
      parse_job(minimal_job, "j", {"job.pattern=16,0,4", "log.validation_patterns=[\"dense\", \"64,0,4\"]"});
  REQUIRE(named.log.validation_patterns.size() == 3);
  CHECK(named.log.validation_patterns.back().describe() == "16,0,4");
  CHECK(parse_job(to_toml(named), "j") == named);
  const auto there =
      parse_job(minimal_job, "j", {"job.pattern=16,0,4", "log.validation_patterns=[\"16,0,4\", \"dense\"]"});
  CHECK(there.log.validation_patterns.size() == 2);
}

TEST_CASE(
    "the weights of job.from give the defaults of a job that begins with them; keys that are given win") {
  const std::string text =
      "[job]\nkind = \"finetune\"\nfrom = \"w\"\ndirectory = \"r\"\n[data]\ndirectory = \"d\"\n";
  const StartDefaults from_weights = [](const JobConfig& given, JobConfig& job) {
    CHECK(given.job.from == "w");
    job.model = {.layers = 3, .width = 64, .head_dim = 16, .vocab_size = 700};
    job.job.pattern = model::PatternPlan(Pattern{16, 0, 4});
    return true;
  };
  const auto job = parse_job(text, "j", {}, from_weights);
  CHECK(job.model.layers == 3);
  CHECK(job.model.vocab_size == 700);
  CHECK(job.job.pattern.describe() == "16,0,4");
  CHECK(job.data.batch == 32);  // still what fine-tuning has
  CHECK(job.log.validation_patterns.front().describe() == "16,0,4");
  const auto other = parse_job(text, "j", {"job.pattern=dense", "model.layers=4"}, from_weights);
  CHECK(other.job.pattern.describe() == "dense");
  CHECK(other.model.layers == 4);
  CHECK(other.model.width == 64);

  const StartDefaults none = [](const JobConfig&, JobConfig&) { return false; };
  CHECK_THROWS_AS(parse_job(text, "j", {}, none), Error);
  CHECK(parse_job(text, "j", {"model.layers=4", "model.width=128", "model.vocab_size=400"}, none)
            .model.layers == 4);
  // Initial weights come from nowhere.
  CHECK(parse_job(minimal_job, "j", {}, [](const JobConfig&, JobConfig&) -> bool {
          throw Error("asked");
        }).job.kind == Kind::pretrain);
}

TEST_CASE("what weights that are not there yet will give is left out of the written job") {
  const std::string text =
      "[job]\nkind = \"adapt\"\nfrom = \"w\"\ndirectory = \"r\"\n[data]\ndirectory = "
      "\"d\"\n[schedule]\nsteps = 1\n"
      "[model]\nlayers = 3\nwidth = 128\nvocab_size = 400\n";
  const StartDefaults none = [](const JobConfig&, JobConfig&) { return false; };
  const StartDefaults come = [](const JobConfig&, JobConfig& job) {
    job.model = {.layers = 3, .width = 128, .head_dim = 32, .kv_heads = 2, .vocab_size = 400};
    job.job.pattern = model::PatternPlan(Pattern{16, 0, 4});
    return true;
  };
  const auto at_start = [&](const std::vector<std::string>& overrides) {
    return parse_job(to_toml(parse_job(text, "j", overrides, none)), "written", {}, come);
  };
  const auto descriptions = [](const JobConfig& job) {
    std::vector<std::string> found;
    for (const auto& plan : job.log.validation_patterns) found.push_back(plan.describe());
    return found;
  };
  using Names = std::vector<std::string>;

  const auto job = at_start({});
  CHECK(job == parse_job(text, "j", {}, come));
  CHECK(job.job.pattern.describe() == "16,0,4");
  CHECK(descriptions(job) == Names{"16,0,4"});
  CHECK(job.model.head_dim == 32);
  CHECK(job.model.kv_heads == 2);
  CHECK(job.awaited.empty());
  CHECK(descriptions(at_start({"log.validation_patterns=[\"8,0,0\"]"})) == Names{"8,0,0", "16,0,4"});

  const auto given = at_start({"job.pattern=dense", "model.head_dim=16"});
  CHECK(given.job.pattern.describe() == "dense");
  CHECK(descriptions(given) == Names{"dense"});
  CHECK(given.model.head_dim == 16);
  CHECK(given.model.kv_heads == 2);
  // Nothing is left out where no weights were asked for, or they are there.
  CHECK(parse_job(text, "j").awaited.empty());
  CHECK(parse_job(text, "j", {}, come).awaited.empty());
}

TEST_CASE("the forms of a pattern") {
  using model::PatternPlan;
  CHECK(plan_of("{ dilation = 16, window = 256, sinks = 4 }") == PatternPlan(Pattern{16, 256, 4}));
  CHECK(plan_of("{ dilation = 64 }") == PatternPlan(Pattern{64, 0, 0}));
  CHECK(plan_of("{ dilation = \"none\", window = 64 }") == PatternPlan(Pattern{Pattern::no_dilation, 64, 0}));
  CHECK(plan_of("\"16,256,4\"") == PatternPlan(Pattern{16, 256, 4}));
  CHECK(plan_of("\"none,256,4\"") == PatternPlan(Pattern{Pattern::no_dilation, 256, 4}));
  CHECK(plan_of("\"dense\"") == PatternPlan(Pattern{1, 0, 0}));
  CHECK(plan_of("[\"dense\"]") == PatternPlan(Pattern{1, 0, 0}));
  const Pattern a{1, 0, 0};
  const Pattern b{64, 0, 0};
  CHECK(plan_of("[\"dense\", \"64,0,0\", \"64,0,0\", { dilation = 1 }]") ==
        PatternPlan({{a}, {b}, {b}, {a}}));
  CHECK(plan_of("[[\"dense\", \"64,0,0\"], \"64,0,0\", \"64,0,0\", [\"dense\"]]") ==
        PatternPlan({{a, b}, {b}, {b}, {a}}));
  // One list of heads stands for all layers.
  CHECK(plan_of("[[\"dense\", \"64,0,0\"]]") == PatternPlan({{a, b}}));
}

TEST_CASE("patterns that are refused") {
  const std::string forms =
      "a pattern ({ dilation = 16, window = 256, sinks = 4 }, \"16,256,4\" or \"dense\")";
  check_refusal("16", "job.toml:2: job.pattern must be " + forms + ", not the integer 16");
  check_refusal(
      "{ window = 4 }",
      "job.toml:2: job.pattern has no dilation; give a positive integer (1 is dense), or \"none\" for the "
      "window and the sinks alone");
  check_refusal("{ dilation = 4, windw = 4 }",
                "job.toml:2: unknown key job.pattern.windw; did you mean window? Keys of a pattern: "
                "dilation, window, sinks");
  check_refusal("{ dilation = 0 }", "job.toml:2: job.pattern.dilation must be at least 1, not 0");
  check_refusal(
      "{ dilation = \"all\" }",
      "job.toml:2: job.pattern.dilation must be a positive integer or \"none\", not the string \"all\"");
  check_refusal("{ dilation = 4, sinks = -1 }", "job.toml:2: job.pattern.sinks must be at least 0, not -1");
  check_refusal("\"16,256\"",
                "job.toml:2: job.pattern: pattern \"16,256\": write dilation,window,sinks (as in 16,256,4 or "
                "none,256,4), or dense");
  check_refusal(
      "[]", "job.toml:2: job.pattern is an empty list; give " + forms + ", or a list of them, one a layer");
  check_refusal("[\"dense\", []]",
                "job.toml:2: job.pattern[1] is an empty list; give " + forms + ", one a head");
  check_refusal("[\"dense\",\n\"dense\",\n5]",
                "job.toml:4: job.pattern[2] must be " + forms + ", not the integer 5");
  check_refusal("[\"dense\", [\"dense\", { dilation = 2, window = 1.5 }]]",
                "job.toml:2: job.pattern[1][1].window must be an integer, not the float 1.5");
  check_refusal(
      "[\"dense\", \"64,0,0\"]",
      "job.toml:2: job.pattern has 2 patterns, one a layer, but the model has 4 layers; give 1 or 4");
  check_refusal(
      "[\"dense\", [\"dense\", \"dense\", \"dense\"], \"dense\", \"dense\"]",
      "job.toml:2: job.pattern[1] has 3 patterns, one a head, but the model has 2 heads; give 1 or 2");
  CHECK(refusal(minimal_job, {"job.pattern=16,x,4"}) ==
        "--set job.pattern=16,x,4: job.pattern: pattern \"16,x,4\": the window is \"x\", which is no whole "
        "number");
}

TEST_CASE("validation patterns that are refused") {
  CHECK(
      refusal(minimal_job, {"log.validation_patterns=dense"}) ==
      "--set log.validation_patterns=dense: log.validation_patterns must be a list of patterns, for example "
      "[\"dense\", \"16,0,4\"], not the string \"dense\"");
  CHECK(refusal(minimal_job + "[log]\nvalidation_patterns = []\n") ==
        "job.toml:8: log.validation_patterns is an empty list; give at least one pattern, or leave the key "
        "out");
  CHECK(refusal(minimal_job + "[log]\nvalidation_patterns = [\"16,0,4\", \"dense\", \"16,0,4\"]\n") ==
        "job.toml:8: log.validation_patterns has 16,0,4 twice; remove one");
  CHECK(refusal(minimal_job + "[log]\nvalidation_patterns = [[\"dense\", \"16,0,4\"]]\n") ==
        "job.toml:8: log.validation_patterns[0] has 2 patterns, one a layer, but the model has 24 layers; "
        "give 1 or 24");
}

/// A plan of random shape and values for a model of `layers` layers of `heads` heads.
model::PatternPlan random_plan(std::mt19937& random, int layers, int heads) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto pattern = [&] { return Pattern{below(70), below(3) == 0 ? 0 : below(4096), below(5)}; };
  std::vector<std::vector<Pattern>> rows(below(2) == 0 ? 1 : static_cast<std::size_t>(layers));
  for (auto& row : rows) {
    row.resize(below(2) == 0 ? 1 : static_cast<std::size_t>(heads));
    for (Pattern& p : row) p = pattern();
  }
  return model::PatternPlan(std::move(rows));
}

TEST_CASE("random plans survive writing and reading") {
  std::mt19937 random(7);
  JobConfig job =
      parse_job(minimal_job, "job.toml", {"job.recipe=joint", "model.layers=4", "model.width=512"});
  for (int trial = 0; trial < 200; ++trial) {
    job.job.pattern = random_plan(random, 4, 4);
    job.job.joint_pattern = random_plan(random, 4, 4);
    job.log.validation_patterns = {job.job.pattern, random_plan(random, 4, 4), random_plan(random, 4, 4)};
    CHECK(parse_job(to_toml(job), "again") == job);
  }
}

TEST_CASE("a plan gives each layer its patterns") {
  const Pattern a{1, 0, 0};
  const Pattern b{64, 0, 4};
  const model::PatternPlan everywhere(b);
  CHECK(everywhere.layer(23).size() == 1);
  CHECK(everywhere.layer(23)[0] == b);
  const model::PatternPlan hybrid({{a}, {a, b}});
  CHECK(hybrid.layer(0).size() == 1);
  CHECK(hybrid.layer(1).size() == 2);
  CHECK(hybrid.layer(1)[1] == b);
}

TEST_CASE("descriptions of plans") {
  using model::PatternPlan;
  const Pattern a{1, 0, 0};
  const Pattern b{64, 0, 0};
  const auto layers = [](std::vector<std::vector<Pattern>> rows) {
    return PatternPlan(std::move(rows)).describe();
  };
  CHECK(PatternPlan().describe() == "dense");
  CHECK(PatternPlan(Pattern{16, 256, 4}).describe() == "16,256,4");
  CHECK(PatternPlan(Pattern{Pattern::no_dilation, 256, 4}).describe() == "none,256,4");
  CHECK(layers({{b}, {b}, {b}}) == "64,0,0");
  CHECK(layers({{b}, {b}, {a}}) == "hybrid(64,0,0 x 2, dense x 1)");
  CHECK(layers({{b}, {b}, {a}, {a}}) == "hybrid(64,0,0 x 2, dense x 2)");
  CHECK(layers({{b}, {a}, {b}, {a}}) == "hybrid((64,0,0 x 1, dense x 1) x 2)");
  CHECK(layers({{a, a, b, b}}) == "heads(dense x 2, 64,0,0 x 2)");
  CHECK(layers({{a, b}, {a}}) == "hybrid(heads(dense x 1, 64,0,0 x 1) x 1, dense x 1)");
}

TEST_CASE("an invalid pattern inside a plan names its place") {
  const auto message = [](const model::PatternPlan& plan) -> std::string {
    try {
      plan.validate(2, 2, "--pattern");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const Pattern good{16, 0, 4};
  const Pattern bad{16, -1, 4};
  CHECK(message(model::PatternPlan({{good}, {good, good}})) == "accepted");
  CHECK(message(model::PatternPlan(bad)).rfind("--pattern: ", 0) == 0);
  CHECK(message(model::PatternPlan({{good}, {good, bad}})).rfind("--pattern[1][1]: ", 0) == 0);
  CHECK(message(model::PatternPlan(std::vector<std::vector<Pattern>>{})) ==
        "--pattern has 0 patterns, one a layer, but the model has 2 layers; give 1 or 2");
}

}  // namespace
}  // namespace ratplus::config
