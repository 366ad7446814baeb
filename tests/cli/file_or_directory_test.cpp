// A file given for a directory, and the other way round: one message that names it and the way out.
#include <doctest/doctest.h>

#include <fstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// What a user has lying about: a run, a plain file, a directory with other things.
struct Place {
  test::ScratchDirectory scratch;
  const fs::path data = test::Playground::get().data;
  const fs::path job = test::Playground::get().job;
  const fs::path run = scratch / "run";
  const fs::path file = scratch / "file";
  const fs::path text = scratch / "text.txt";
  const fs::path other = scratch / "other.pth";

  Place() {
    const auto made = test::ratplus(train("job.directory=" + run.string() + " schedule.steps=1"));
    CAPTURE(made.output);
    REQUIRE(made.status == 0);
    write_whole_file(file, "hello\n");
    write_whole_file(text, "hello\n");
    fs::create_directories(other);
    write_whole_file(other / "diary.txt", "of years");
  }
  std::string train(const std::string& settings) const {
    return fmt::format("train {} --set data.directory={} {}", job.string(), data.string(), settings);
  }
};

void check_refused(const std::string& arguments, const std::vector<std::string>& parts) {
  const auto result = test::ratplus(arguments);
  CAPTURE(arguments);
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(test::count(result.output, "ratplus: ") == 1);
  CHECK(test::count(result.output, "\n") == 1);
  for (const auto& part : parts) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
}

}  // namespace

TEST_CASE("a file where a directory is wanted") {
  const Place place;
  const auto file = place.file.string(), run = place.run.string(), fresh = (place.scratch / "new").string();
  check_refused(place.train("job.directory=" + file),
                {"job.directory = " + file, "is a file", "--set job.directory"});
  check_refused(place.train("job.directory=" + file) + " --resume", {"job.directory = " + file, "is a file"});
  check_refused(place.train("job.directory=" + file + "/a/b"), {file + " is a file", "--set job.directory"});
  check_refused(place.train("job.directory=" + fresh + " checkpoint.directory=" + file),
                {"checkpoint.directory = " + file, "is a file"});
  check_refused(place.train("job.directory=" + fresh + " data.directory=" + file),
                {file + " is not a dataset: it is a file"});
  const auto dataset_file = (place.data / "dataset.json").string();
  check_refused(fmt::format("eval {} --data {}", run, dataset_file),
                {dataset_file, "it is a file", "give " + place.data.string()});
  check_refused("eval " + run + "/metrics.jsonl", {"metrics.jsonl", "give the directory, " + run + "\n"});
  check_refused("report " + file, {file + ": is no directory", "job.directory"});
  check_refused("report " + run + "/metrics.jsonl",
                {"is no directory; give the run directory, " + run + "\n"});
  check_refused("report " + run + "/typo", {"typo: there is no such run directory"});
  check_refused("watch " + file, {file + ": is no directory", "job.directory"});
  check_refused("watch " + run + "/job.toml", {"is no directory; give the run directory, " + run + "\n"});
  check_refused(fmt::format("prepare {} --tokenizer {}/tokenizer.model --output {}", place.text.string(),
                            place.data.string(), file),
                {file, "is a file: choose another"});
  check_refused(fmt::format("convert {} {} --force", run, file), {file + ": is a file"});
  CHECK_FALSE(fs::exists(fresh));
  CHECK(read_whole_file(place.file) == "hello\n");
}

TEST_CASE("a directory where a file is wanted, and --force takes none away that is no checkpoint") {
  const Place place;
  const auto other = place.other.string(), run = place.run.string();
  check_refused(fmt::format("eval {} --json {}", run, other), {"--json " + other, "is a directory"});
  check_refused(fmt::format("eval {} --tokens {} --dump-logits {}/l.h5", run, other, run),
                {other, "Is a directory; give a file"});
  check_refused("eval " + other, {other + ": this directory is neither a checkpoint", ".pth"});
  check_refused(fmt::format("prepare {} --tokenizer {} --output {}/new", place.text.string(), other, run),
                {other, "Is a directory; give a file"});
  check_refused(fmt::format("convert {} {} --force", run, other),
                {other + ": is a directory", "choose another"});
  fs::create_directories(place.run / "page.html");
  check_refused(fmt::format("report {} --output {}/page.html", run, run),
                {"page.html", "give the name of a file"});
  const auto plain = place.scratch / "plain";
  fs::rename(place.other, plain);
  check_refused(fmt::format("convert {} {} --force", run, plain.string()),
                {plain.string() + ": is a directory that is no checkpoint", "choose another"});
  CHECK(read_whole_file(plain / "diary.txt") == "of years");

  const auto converted = place.scratch / "converted";
  CHECK(test::ratplus(fmt::format("convert {} {}", run, converted.string())).status == 0);
  CHECK(test::ratplus(fmt::format("convert {} {} --force", run, converted.string())).status == 0);
}
