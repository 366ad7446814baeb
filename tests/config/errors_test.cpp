#include <doctest/doctest.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>

#include "lib/config/suggest.h"
#include "tests/config/cases.h"
#include "tests/support/messages.h"

namespace ratplus::config {
namespace {

/// A line added to minimal_job (which ends in [data], at line 6), and the message that follows.
void check_line(const std::string& line, const std::string& message) {
  CHECK(refusal(minimal_job + line + "\n") == message);
}

void check_override(const std::string& text, const std::string& message) {
  CHECK(refusal(minimal_job, {text}) == message);
}

TEST_CASE("the minimal job is accepted") {
  CHECK(refusal(minimal_job) == "accepted");
}

TEST_CASE("an unknown key names the nearest one and the keys of its section") {
  const std::string keys =
      " Keys of [data]: directory, sources, sequence_length, batch, micro_batch, sampling, prefetch";
  check_line("bacth = 8", "job.toml:7: unknown key data.bacth; did you mean data.batch?" + keys);
  check_line("micro_batch_size = 8",
             "job.toml:7: unknown key data.micro_batch_size; did you mean data.micro_batch?" + keys);
  check_line("colour = 8", "job.toml:7: unknown key data.colour." + keys);
  // A key of another section is named there, however near one of this section is.
  check_line("peak_lr = 1", "job.toml:7: unknown key data.peak_lr; did you mean schedule.peak_lr?" + keys);
}

TEST_CASE("of several mistakes the first of the file is reported") {
  const std::string text = minimal_job + "zzz = 1\naaa = 2\n";
  CHECK(refusal(text).rfind("job.toml:7: unknown key data.zzz. Keys", 0) == 0);
}

TEST_CASE("an unknown section names the nearest one") {
  const std::string sections =
      " Sections: [job], [model], [data], [optimizer], [schedule], [parallel], [checkpoint], [log], "
      "[health]";
  check_line("[optimiser]\nbeta1 = 0.9",
             "job.toml:7: unknown section [optimiser]; did you mean [optimizer]?" + sections);
  check_line("[serving]", "job.toml:7: unknown section [serving]." + sections);
  CHECK(refusal("batch = 8\n" + minimal_job) ==
        "job.toml:1: key batch is outside any section; did you mean data.batch?" + sections);
  check_line("[[log]]\nevery = 1",
             "job.toml:7: section [log] is a list of tables; write its name in single brackets");
}

TEST_CASE("counts that 64 bits do not hold are refused") {
  const auto tokens = refusal(
      minimal_job, {"schedule.steps=1000000000000", "data.batch=1000000", "data.sequence_length=10000000"});
  CAPTURE(tokens);
  CHECK(test::contains(tokens,
                       "schedule.steps = 1000000000000 x data.batch = 1000000 x data.sequence_length = "
                       "10000000 are 1e+25 tokens"));
  const auto logits = refusal(
      minimal_job, {"model.vocab_size=1000000000", "model.width=2", "model.head_dim=2", "data.batch=1000000",
                    "data.micro_batch=1000000", "data.sequence_length=10000000", "schedule.steps=1"});
  CAPTURE(logits);
  CHECK(test::contains(logits, "x model.vocab_size = 1000000000 is more than any memory holds"));
}

TEST_CASE("a wrong type names the expected and the found one") {
  check_line("batch = \"ten\"", "job.toml:7: data.batch must be an integer, not the string \"ten\"");
  check_line("batch = 1.5", "job.toml:7: data.batch must be an integer, not the float 1.5");
  check_line("batch = inf", "job.toml:7: data.batch must be an integer, not the float inf");
  check_line("batch = true", "job.toml:7: data.batch must be an integer, not the boolean true");
  check_line("batch = [1]", "job.toml:7: data.batch must be an integer, not a list");
  check_line("batch = { a = 1 }", "job.toml:7: data.batch must be an integer, not a table");
  check_line("batch = 2026-01-01", "job.toml:7: data.batch must be an integer, not a date or time");
  check_line(
      "sampling = 3",
      "job.toml:7: data.sampling must be \"ordered\" or \"random\" or \"shuffled\", not the integer 3");
  check_line("[model]\nmixer = 1",
             "job.toml:8: model.mixer must be a mixer (\"ratplus\", \"gated_attention\", \"attention\", "
             "\"local_attention\", \"rat\", \"rnn\", or a table such as { kind = \"rat\", chunk = 16, groups "
             "= 2 }), "
             "not the integer 1");
  check_line("[model]\nmixer = \"ratpuls\"",
             "job.toml:8: model.mixer must be one of \"ratplus\", \"gated_attention\", \"attention\", "
             "\"local_attention\", \"rat\", \"rnn\", not \"ratpuls\"");
  check_line(
      "[model]\nlayers = 3\nmixer = [\"ratplus\", \"gated_attention\"]",
      "job.toml:9: model.mixer is a list of 2, and model.layers = 3; give one mixer for all layers, or one a "
      "layer");
  check_line("[optimizer]\nbeta1 = \"0.9\"",
             "job.toml:8: optimizer.beta1 must be a number, not the string \"0.9\"");
  CHECK(refusal("[job]\ndirectory = 1") == "job.toml:2: job.directory must be a string, not the integer 1");
}

TEST_CASE("a value out of range names the range") {
  check_line("batch = 0", "job.toml:7: data.batch must be 1 to 1000000, not 0");
  check_line("prefetch = -1", "job.toml:7: data.prefetch must be 1 to 1024, not -1");
  check_line("sampling = \"mixed\"",
             "job.toml:7: data.sampling must be \"ordered\" or \"random\" or \"shuffled\", not \"mixed\"");
  check_line("[schedule.warmup]", "job.toml:7: schedule.warmup must be a number, not a table");
  check_line("[optimizer]\nbeta2 = 1.0",
             "job.toml:8: optimizer.beta2 must be at least 0 and less than 1, not 1");
  check_line("[optimizer]\nbeta1 = -0.1",
             "job.toml:8: optimizer.beta1 must be at least 0 and less than 1, not -0.1");
  check_line("[optimizer]\neps = 0", "job.toml:8: optimizer.eps must be greater than 0 and finite, not 0");
  check_line("[optimizer]\nclip = nan", "job.toml:8: optimizer.clip must be greater than 0, not nan");
  check_line("[checkpoint]\nkeep = 0", "job.toml:8: checkpoint.keep must be at least 1, not 0");
  check_override("schedule.warmup=1",
                 "--set schedule.warmup=1: schedule.warmup must be at least 0 and less than 1, not 1");
  check_override("schedule.steps=0",
                 "--set schedule.steps=0: schedule.steps must be 1 to 1000000000000, not 0");
  check_override("job.kind=tune",
                 "--set job.kind=tune: job.kind must be \"pretrain\" or \"adapt\" or \"finetune\", not "
                 "\"tune\"");
}

TEST_CASE("no clipping is written as inf, and no other key takes it") {
  CHECK(refusal(minimal_job + "[optimizer]\nclip = inf\n") == "accepted");
  check_line("[health]\nnot_finite = \"ignore\"",
             "job.toml:8: health.not_finite must be \"stop\" or \"skip\", not \"ignore\"");
  check_line("[health]\nmax_skips = 0", "job.toml:8: health.max_skips must be 1 to 1000000, not 0");
  check_line("[health]\nstraggler = 1",
             "job.toml:8: health.straggler must be at least 0 and less than 1, not 1");
  check_line("[optimizer]\nweight_decay = inf",
             "job.toml:8: optimizer.weight_decay must be at least 0 and at most 1000, not inf");
}

TEST_CASE("rates and deviations that no float32 weight survives are refused, and large ones are not") {
  check_override(
      "schedule.peak_lr=1e300",
      "--set schedule.peak_lr=1e300: schedule.peak_lr must be greater than 0 and at most 1000, not 1e+300");
  check_override("optimizer.weight_decay=1e39",
                 "--set optimizer.weight_decay=1e39: optimizer.weight_decay must be at least 0 and at most "
                 "1000, not 1e+39");
  check_override("model.init_std=1e300",
                 "--set model.init_std=1e300: model.init_std must be greater than 0 and at most 1000, not "
                 "1e+300");
  CHECK(refusal(minimal_job, {"schedule.peak_lr=1000", "optimizer.weight_decay=1000",
                              "model.init_std=1000"}) == "accepted");
}

TEST_CASE("what is not TOML is reported with line, column and what stands there") {
  check_line(
      "sampling = random",
      "job.toml:7:12: not valid TOML: could not determine value type; a string needs quotes (in: sampling = "
      "random)");
  check_line("batch = 8\nbatch = 16",
             "job.toml:8:9: not valid TOML: cannot redefine existing integer 'batch'; give each key and each "
             "section once (in: batch = 16)");
  check_line(
      "[job]\nseed = 1",
      "job.toml:7:1: not valid TOML: cannot redefine existing table 'job'; give each key and each section "
      "once (in: [job])");
  check_line("batch 8", "job.toml:7:7: not valid TOML: expected '=', saw '8' (in: batch 8)");
}

TEST_CASE("required keys") {
  CHECK(refusal("[data]\ndirectory = \"d\"\n[schedule]\nsteps = 1") ==
        "job.toml: job.directory is missing; give it in the job file, for example directory = \"runs/first\" "
        "in [job], or with --set job.directory=...");
  CHECK(refusal("[job]\ndirectory = \"r\"\n[schedule]\nsteps = 1") ==
        "job.toml: data.directory is missing; give it in the job file, for example directory = "
        "\"runs/first/data\" in [data], or with --set data.directory=...");
  CHECK(refusal("[job]\ndirectory = \"r\"\n[data]\ndirectory = \"d\"") ==
        "job.toml: the length of the job is missing; give steps or tokens in [schedule], for example tokens "
        "= 1e9");
  CHECK(refusal(minimal_job, {"job.kind=adapt"}) ==
        "job.toml: job.from is missing; give it in the job file, for example from = \"runs/pretrain\" in "
        "[job], or with --set job.from=...");
  // An empty value is as good as none, and the message says where it is.
  CHECK(refusal(minimal_job, {"job.directory="}).rfind("--set job.directory=: job.directory is missing", 0) ==
        0);
}

TEST_CASE("keys that exclude each other") {
  CHECK(refusal("[job]\ndirectory = \"r\"\n[data]\ndirectory = \"d\"\n[schedule]\nsteps = 1\ntokens = 1e9") ==
        "job.toml:6: schedule.steps and schedule.tokens (at job.toml:7) are both given; remove one of them");
  CHECK(refusal(minimal_job, {"job.from=runs/p"}) ==
        "--set job.from=runs/p: job.from is given, but job.kind = \"pretrain\" begins with initial weights; "
        "use job.kind = \"adapt\", or remove job.from");
  CHECK(refusal(minimal_job, {"job.joint_pattern=64,0,0"}) ==
        "--set job.joint_pattern=64,0,0: job.joint_pattern is given, but job.recipe = \"plain\" has no "
        "sparse update; use job.recipe = \"joint\", or remove job.joint_pattern");
}

TEST_CASE("sizes that do not fit each other") {
  check_line(
      "[model]\nwidth = 200\nhead_dim = 64",
      "job.toml:8: model.width = 200 is not a multiple of model.head_dim = 64; use model.width = 192 or 256");
  check_override("model.width=100",
                 "--set model.width=100: model.width = 100 is not a multiple of model.head_dim = 128; use "
                 "model.width = 128");
  check_line(
      "[model]\nwidth = 63\nhead_dim = 63",
      "job.toml:9: model.head_dim = 63 is odd, but rotary position embedding turns pairs of channels; use "
      "62 or 64");
  check_line(
      "batch = 10\nmicro_batch = 4",
      "job.toml:8: data.batch = 10 is not a multiple of data.micro_batch = 4; use data.batch = 8 or 12, or "
      "data.micro_batch = 2");
  check_override(
      "schedule.floor_lr=1e-3",
      "--set schedule.floor_lr=1e-3: schedule.floor_lr = 0.001 is above schedule.peak_lr = 0.0008; lower "
      "the one or raise the other");
  check_override(
      "parallel.ranks=3",
      "--set parallel.ranks=3: data.batch = 512 is not divisible by 3 ranks x data.micro_batch 1 = 3; "
      "use data.batch = 510 or 513, or 2 ranks");
}

TEST_CASE("sizes beyond MPI's counts and beyond any memory") {
  CHECK(refusal(minimal_job, {"model.width=12288"}) == "accepted");
  check_override(
      "model.width=12416",
      "--set model.width=12416: model.width = 12416 makes blocks of 2158223616 parameters, but MPI "
      "moves at most 2147483647 at once; use a smaller width and more model.layers");
  check_override(
      "model.vocab_size=2000000",
      "--set model.vocab_size=2000000: model.vocab_size = 2000000 and model.width = 2048 make an "
      "embedding of 4096002048 parameters, but MPI moves at most 2147483647 at once; use a smaller "
      "vocabulary or width");
  CHECK(refusal(minimal_job,
                {"data.batch=1000000", "data.micro_batch=1000000", "data.sequence_length=10_000_000"}) ==
        "--set data.micro_batch=1000000: data.micro_batch = 1000000 x data.sequence_length = 10000000 x "
        "model.width = "
        "2048 x model.layers = 24 is more than any memory holds; make some of them smaller");
}

TEST_CASE("the number of ranks") {
  JobConfig job = parse_job(minimal_job, "job.toml");
  const auto message = [&](int ranks) -> std::string {
    try {
      validate_ranks(job, ranks);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  job.data.batch = 10;
  job.data.micro_batch = 2;
  CHECK(message(1) == "accepted");
  CHECK(message(5) == "accepted");
  CHECK(message(4) ==
        "job.toml: data.batch = 10 is not divisible by 4 ranks x data.micro_batch 2 = 8; use data.batch = 8 "
        "or 16, or 1 rank");
  CHECK(message(2) ==
        "job.toml: data.batch = 10 is not divisible by 2 ranks x data.micro_batch 2 = 4; use data.batch = 8 "
        "or 12, or data.micro_batch = 1, or 1 rank");
  CHECK(message(6) ==
        "job.toml: data.batch = 10 is not divisible by 6 ranks x data.micro_batch 2 = 12; use data.batch = "
        "12, or 5 ranks");
  job.parallel.ranks = 8;
  job.data.batch = 16;
  CHECK(message(8) == "accepted");
  CHECK(message(4) ==
        "job.toml: parallel.ranks = 8, but the job was started on 4 ranks; start it with mpirun -n 8, or set "
        "parallel.ranks = 0 to take any number");
}

TEST_CASE("the dataset") {
  const JobConfig job = parse_job(minimal_job, "job.toml");
  const auto message = [&](std::int64_t vocab, std::int64_t train, std::int64_t validation) -> std::string {
    try {
      validate_data(job, "runs/a/data", vocab, train, validation);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  CHECK(message(32000, 4097, 4097) == "accepted");
  CHECK(
      message(4096, 4097, 4097) ==
      "job.toml: model.vocab_size = 32000, but the dataset runs/a/data (data.directory) was tokenized with a "
      "vocabulary of 4096; set model.vocab_size = 4096, or give a dataset of the model's vocabulary");
  CHECK(message(32000, 2100, 4097) ==
        "job.toml: data.sequence_length = 4096 needs 4097 tokens, but the training split of runs/a/data has "
        "2100; use a "
        "data.sequence_length of at most 2099, or prepare a dataset from more text");
  CHECK(message(32000, 4097, 4096) ==
        "job.toml: data.sequence_length = 4096 needs 4097 tokens, but the validation split of runs/a/data "
        "has 4096; "
        "use a data.sequence_length of at most 4095, or prepare the dataset again with more text or a larger "
        "validation fraction");
  CHECK(message(32000, 4097, 0) ==
        "job.toml: data.sequence_length = 4096 needs 4097 tokens, but the validation split of runs/a/data "
        "has 0; "
        "prepare the dataset again with more text or a larger validation fraction");
}

TEST_CASE("overrides that are not section.key=value") {
  const std::string form = ": an override is written section.key=value, for example --set data.batch=64";
  check_override("data.batch", "--set data.batch" + form);
  check_override("batch=8", "--set batch=8" + form);
  check_override("=8", "--set =8" + form);
  check_override("data.bacth=8",
                 "--set data.bacth=8: unknown key data.bacth; did you mean data.batch? Keys of [data]: "
                 "directory, sources, sequence_length, batch, micro_batch, sampling, prefetch");
  CHECK(refusal(minimal_job, {"dat.batch=8"})
            .rfind("--set dat.batch=8: unknown section [dat]; did you mean [data]?", 0) == 0);
  check_override("data.batch=1O",
                 "--set data.batch=1O: data.batch must be an integer, not the string \"1O\"");
  CHECK(refusal(minimal_job, {"job.pattern={dilation=16"})
            .rfind("--set job.pattern={dilation=16: the value is not valid TOML: ", 0) == 0);
}

TEST_CASE("files that cannot be read") {
  const auto message = [](const std::filesystem::path& file) -> std::string {
    try {
      load_job(file, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  CHECK(message("no/such/job.toml") == "cannot read no/such/job.toml: No such file or directory");
  const std::filesystem::path directory = source_directory() / "configs";
  CHECK(message(directory) ==
        directory.string() + ": is a directory; give a job file, such as configs/quickstart/pretrain.toml");
  const auto pointer = std::filesystem::temp_directory_path() / fmt::format("pointer-{}.toml", ::getpid());
  std::ofstream(pointer) << "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
  CHECK(message(pointer) ==
        pointer.string() + ": is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`");
  std::filesystem::remove(pointer);
}

TEST_CASE("a job file that comes through a pipe is read once") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  REQUIRE(::write(ends[1], minimal_job.data(), minimal_job.size()) == std::ssize(minimal_job));
  ::close(ends[1]);
  JobFileText file(fmt::format("/proc/self/fd/{}", ends[0]));
  const auto job = file.load({});
  CHECK(job.data.directory == parse_job(minimal_job, "job.toml").data.directory);
  CHECK(file.load({"schedule.steps=7"}).schedule.steps == 7);
  ::close(ends[0]);
}

TEST_CASE("edit distance counts a swap of neighbours as one") {
  CHECK(edit_distance("batch", "batch") == 0);
  CHECK(edit_distance("bacth", "batch") == 1);
  CHECK(edit_distance("", "batch") == 5);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("ca", "abc") == 3);  // 2 without the rule that no part is edited twice
  CHECK(nearest("every", {"keep", "ever", "evry"}) == "ever");
  CHECK(nearest("every", {"keep", "shard"}).empty());
}

}  // namespace

TEST_CASE("characters beyond ASCII belong in strings and comments") {
  const std::string head = "# \u03e3\n[job]\ndirectory = \"r\u03e3\" # \u03e3\n";
  const std::string rest = "[data]\ndirectory = '''\u03e3\n'''\n[schedule]\nsteps = 1\n";
  CHECK(parse_job(head + rest, "job.toml").job.directory == "r\u03e3");
  CHECK(parse_job(head + rest, "job.toml", {"job.directory=runs/\u03e3"}).job.directory == "runs/\u03e3");
  using ratplus::test::contains;
  CHECK(contains(refusal(head + "seed = \u03e3\n" + rest),
                 "job.toml:4: not valid TOML: a character that is not ASCII"));
  CHECK(contains(refusal(head + "threads = +r\"\u03e3\"\n" + rest), "not ASCII"));  // no string begins there
  CHECK(contains(refusal(head + "threads = \"a\\\\\" \u03e3\n" + rest), "job.toml:4: not valid TOML"));
}

TEST_CASE("sizes of mixers that do not fit say what does") {
  const auto refused = [](const std::string& model, const std::vector<std::string>& overrides = {}) {
    return refusal(std::string(minimal_job) + "[model]\n" + model + "\n", overrides);
  };
  CHECK(refused("mixer = { kind = \"rat\", chunk = 1 }") ==
        "job.toml:8: model.mixer = \"rat\": chunk = 1 is less than 2; chunks of one token are attention: use "
        "the mixer "
        "\"attention\", or longer chunks");
  CHECK(refused("mixer = { kind = \"rat\", groups = 3 }") ==
        "job.toml:8: model.mixer = \"rat\": groups = 3 does not divide the model's 16 heads; use one of 1, "
        "2, 4, 8, 16");
  CHECK(refused("mixer = { kind = \"rat\", window = 3 }") ==
        "job.toml:8: unknown key model.mixer.window. Keys of \"rat\": kind, chunk, groups");
  CHECK(refused("mixer = { global = \"rat\", every = 2 }")
            .starts_with("job.toml:8: model.mixer has no local; a rule is"));
  CHECK(refused("kv_heads = 3") ==
        "job.toml:8: model.kv_heads = 3 does not divide the model's 16 heads; use one of 1, 2, 4, 8, 16, or "
        "0 for one a "
        "head");
  CHECK(refused("kv_heads = 4\nmixer = \"rat\"") ==
        "job.toml:8: model.kv_heads = 4: the mixer \"rat\" has no heads of keys to share; leave "
        "model.kv_heads out");
}

TEST_CASE("a pattern for a mixer that takes none is refused") {
  const std::string rat = std::string(minimal_job) + "[model]\nmixer = \"rat\"\n";
  CHECK(refusal(rat, {"job.pattern=64,0,0"}) ==
        "--set job.pattern=64,0,0: job.pattern is 64,0,0, but layer 0 holds RAT (chunk 16, groups 2), which "
        "takes no "
        "pattern; leave it out");
  CHECK(refusal(rat, {"job.recipe=joint"}).find("job.joint_pattern is 64,0,0, but layer 0 holds RAT") !=
        std::string::npos);
  const std::string both =
      std::string(minimal_job) + "[model]\nlayers = 2\nmixer = [\"attention\", \"local_attention\"]\n";
  CHECK(refusal(both, {"job.pattern=64,0,0"})
            .ends_with("or give a list of one a layer, dense for such layers"));
  CHECK_NOTHROW(parse_job(both, "job.toml", {"job.pattern=[\"64,0,0\", \"dense\"]"}));
}

}  // namespace ratplus::config
