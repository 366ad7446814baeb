// Every start of a run leaves a record of program, libraries, hosts, environment and job; `ratplus --version`.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "lib/config/job.h"
#include "lib/run/run_record.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

nlohmann::json start_of(const fs::path& run, int number) {
  return parse_json(read_whole_file(run / "starts" / fmt::format("start-{:04}.json", number)));
}

}  // namespace

TEST_CASE("each start is recorded, and a resume keeps the earlier one's") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto train = fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=4 ",
                                 playground.job.string(), run.string(), playground.data.string());
  const auto stopped = test::shell(
      "NCCL_DEBUG=WARN SLURM_JOB_ID=17 SLURM_JWT=hush UNRELATED=x RATPLUS_TEST_FAULT=1:gradient:3:1 " +
      test::command(train, 2));
  REQUIRE(stopped.status == 3);
  const auto resumed = test::ratplus(train + "log.every=2 --resume");
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);

  const auto first = start_of(run, 1);
  CHECK(first["step"] == 0);
  CHECK(first["checkpoint"].is_null());
  CHECK(first["environment"]["NCCL_DEBUG"] == "WARN");
  CHECK(first["environment"]["SLURM_JOB_ID"] == "17");
  CHECK(!first["environment"].contains("UNRELATED"));
  CHECK(!test::contains(json_dump(first), "hush"));
  REQUIRE(first["ranks"].size() == 2);
  CHECK(first["ranks"][1]["rank"] == 1);
  CHECK(first["ranks"][1]["device"] == "cpu");
  CHECK(first["ranks"][0]["process"] != first["ranks"][1]["process"]);
  CHECK(!first["ranks"][1].contains("environment"));  // it is the root's
  REQUIRE(first["hosts"].size() == 1);
  CHECK(first["hosts"][0]["name"] == first["ranks"][0]["host"]);
  CHECK(first["hosts"][0]["cores"] > 0);
  CHECK(test::contains(first["libraries"]["HDF5"], "1."));
  CHECK(first["libraries"]["MPI"] != "");
  CHECK(first["program"]["revision"] != "");
  CHECK(first["program"]["compiler"] != "");
  CHECK(first["command"][1] == "train");
  CHECK(config::parse_job(first["job"].get<std::string>(), "record") ==
        config::load_job(run / "job.toml", {"log.every=1"}));

  const auto second = start_of(run, 2);
  CHECK(second["step"] == 2);
  CHECK(test::contains(second["checkpoint"], "step-00000002"));
  CHECK(test::contains(second["job"], "every = 2"));
  CHECK(second["ranks"].size() == 1);
}

TEST_CASE("a rank whose environment differs is seen") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto train =
      fmt::format("{} train {} --set job.directory={} data.directory={} schedule.steps=1", RATPLUS_PROGRAM,
                  playground.job.string(), run.string(), playground.data.string());
  const auto result =
      test::shell(fmt::format("{} -n 1 -x NCCL_ALGO=Ring {} : -n 1 {}", MPIEXEC, train, train));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  const auto record = start_of(run, 1);
  CHECK(record["environment"]["NCCL_ALGO"] == "Ring");
  REQUIRE(record["ranks"][1]["environment"].contains("NCCL_ALGO"));
  CHECK(record["ranks"][1]["environment"]["NCCL_ALGO"].is_null());
}

TEST_CASE("what is recorded of the environment") {
  for (const char* name : {"NCCL_DEBUG", "UCX_TLS", "OMPI_MCA_btl", "SLURM_NNODES", "CUDA_VISIBLE_DEVICES",
                           "RATPLUS_TEST_NODES", "OMP_NUM_THREADS"}) {
    CAPTURE(std::string(name));
    CHECK(run::is_recorded(name));
  }
  for (const char* name : {"HOME", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT",
                           "OMPI_MCA_orte_precondition_transports", "NCCL_TOKEN", "XNCCL_DEBUG"}) {
    CAPTURE(std::string(name));
    CHECK(!run::is_recorded(name));
  }
}

TEST_CASE("starts are numbered on from the largest") {
  const test::ScratchDirectory scratch;
  CHECK(run::next_start_file(scratch.path()).filename() == "start-0001.json");
  fs::create_directories(scratch / "starts");
  for (const char* name :
       {"start-0002.json", "start-0010.json", "start-0011.json.partial", "start-x.json", "notes"})
    write_whole_file(scratch / "starts" / name, "");
  CHECK(run::next_start_file(scratch.path()).filename() == "start-0011.json");
}

TEST_CASE("--version names the program and its libraries") {
  const auto result = test::ratplus("--version");
  CAPTURE(result.output);
  CHECK(result.status == 0);
  for (const char* part : {"ratplus 0.", "revision", "compiler", "MPI", "HDF5", "OpenBLAS"}) {
    CAPTURE(std::string(part));
    CHECK(test::contains(result.output, part));
  }
}
