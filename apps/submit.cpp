// ratplus submit: a training job to Slurm's queue, once all is checked that needs neither ranks nor GPUs.
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/format.h"
#include "base/error.h"
#include "base/files/file_lock.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "kernels/ops.h"
#include "lib/config/job.h"
#include "lib/model/parameters.h"
#include "lib/plan/plan.h"
#include "lib/session/start_defaults.h"
#include "lib/slurm/batch_script.h"
#include "lib/slurm/sbatch.h"
#include "lib/train/found_run.h"
#include "lib/train/training_data.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* submit_help = R"(usage: ratplus submit JOB.toml --nodes N --gpus-per-node G [options]
       ratplus submit JOB.toml --nodes N --ranks-per-node R [options]        (without GPUs)

Checks all of a training job that can be checked without ranks and GPUs (job file, data and its shards,
the weights or the checkpoint it starts from, that the batch divides over the ranks, and with --gpu that it
fits into the GPUs' memory), writes
  RUN/submitted.toml      the whole effective job: what the job file says later changes nothing; what weights
                          decide that --after waits for is left out (model and pattern, where not given)
  RUN/submitted.sbatch    a script that needs nothing of the repository
and submits the script to Slurm. Before the time is up the job saves and queues itself again, until it is
done; jobs/README.md says how, and what else there is for batch jobs: adaptation, sweeps, evaluation.

)";

constexpr const char* submit_help_end = R"(
examples:
  ratplus submit configs/pretrain/1b.toml --nodes 4 --gpus-per-node 8 --time 24:00:00 --partition gpu
  ratplus submit configs/pretrain/1b.toml --nodes 4 --gpus-per-node 8 --gpu h100 --dry-run
  ratplus submit configs/adapt/1b.toml --nodes 1 --gpus-per-node 8 --after 4711 --set job.pattern=64,0,4
  ratplus submit configs/pretrain/1b.toml --nodes 2-4 --gpus-per-node 8 --time 24:00:00
  ratplus submit job.toml --nodes 2 --ranks-per-node 4 --cpus-per-rank 16 --launcher mpirun
)";

struct SubmitArguments {
  std::string job;
  std::vector<std::string> overrides;
  slurm::Resources resources;
  slurm::Launcher launcher = slurm::Launcher::srun;
  bool check = false;  ///< `ratplus check` first
  std::string gpu;     ///< the kind of the cluster's GPUs; empty: not given
  bool dry_run = false;
};

/// Empty when help was asked for and given.
std::optional<SubmitArguments> parse_submit(const Arguments& args) {
  SubmitArguments parsed;
  auto& r = parsed.resources;
  std::string nodes;
  std::string launcher = slurm::to_string(parsed.launcher);
  po::options_description options("options");
  auto add = options.add_options();
  add("nodes", po::value(&nodes)->required()->value_name("N"),
      "nodes of the cluster; A-B: from A to B of them, as many as are free at each start of the job, so that "
      "it "
      "goes on on fewer when one fails");
  add("gpus-per-node", po::value(&r.gpus_per_node)->value_name("G"), "GPUs of a node; each gets a rank");
  add("ranks-per-node", po::value(&r.ranks_per_node)->value_name("R"),
      "ranks of a node; default: one for each GPU");
  add("cpus-per-rank", po::value(&r.cpus_per_rank)->value_name("C"),
      "cores of a rank; default: what Slurm gives");
  add("gpu", po::value(&parsed.gpu)->value_name("KIND"),
      "of the cluster (h100, h200, a100, ...): the memory and the time that are expected of the job there, "
      "as "
      "`ratplus plan` lists them; a job that does not fit is refused");
  add("time", po::value(&r.time)->value_name("LIMIT"),
      "time limit of one start, as sbatch takes it (24:00:00, 2-00:00:00); default: the partition's");
  add("stop-before", po::value(&r.stop_before)->value_name("S"),
      "seconds before that limit at which the ranks begin to save; more than a step and a checkpoint "
      "take; "
      "default: 300");
  add("partition", po::value(&r.partition)->value_name("NAME"), "where the job is queued");
  add("account", po::value(&r.account)->value_name("NAME"), "whom it is charged to");
  add("after", po::value(&r.after)->value_name("JOB"), "wait until Slurm's job of this number has succeeded");
  add("sbatch", po::value(&r.more)->composing()->value_name("OPTION"),
      "any other option of sbatch, as --sbatch=--constraint=nvlink; as often as wanted");
  add("launcher", po::value(&launcher)->value_name("srun|mpirun"), "starts the ranks; default: srun");
  add("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "override a key of the job file");
  add("check", po::bool_switch(&parsed.check),
      "measure the job's nodes by `ratplus check` before training, at each start; where something stands "
      "out, "
      "the job ends with status 5");
  add("dry-run", po::bool_switch(&parsed.dry_run), "check, print the script, and write and submit nothing");
  const Positional job{"job", 1, po::value(&parsed.job),
                       "a job file is missing (give it before --set, which takes all words that follow)",
                       "JOB.toml"};
  const auto given = parse_command_line(args, options, job, {submit_help, submit_help_end});
  if (!given) return std::nullopt;
  if (!given->contains("gpus-per-node") && !given->contains("ranks-per-node"))
    throw po::error("how many ranks a node gets is missing: --gpus-per-node G, or --ranks-per-node R");
  if (!given->contains("ranks-per-node")) r.ranks_per_node = r.gpus_per_node;
  if (!r.time.empty()) slurm::limit_seconds(r.time);  // an Error of its own
  as_usage_error([&] {
    r.set_nodes(nodes);
    slurm::check(r);
  });
  if (!parsed.gpu.empty()) {
    if (r.gpus_per_node == 0) throw po::error("--gpu is the kind of --gpus-per-node, which is missing");
    plan::find_gpu(parsed.gpu);
  }
  parsed.launcher = slurm::parse_launcher(launcher);
  return parsed;
}

/// A job needs GPUs and a program for them: a dry run only warns without them.
void check_device(const config::JobConfig& job, const slurm::Resources& r, bool dry_run) {
  const bool gpus = r.gpus_per_node > 0;
  if (gpus && job.job.device == DeviceChoice::cpu) {
    fail(
        "{}: job.device = \"cpu\" would leave --gpus-per-node {} idle; use --ranks-per-node, or job.device = "
        "\"auto\"",
        job.source, r.gpus_per_node);
  }
  if (!gpus && job.job.device == DeviceChoice::cuda)
    fail("{}: job.device = \"cuda\" needs GPUs; give --gpus-per-node", job.source);
  if (gpus && cuda_device_count() == 0 && cuda_missing().empty()) {
    const auto problem = fmt::format(
        "this ratplus was built without CUDA and would leave --gpus-per-node {} idle; build it where nvcc is "
        "(cmake -DRATPLUS_CUDA=ON)",
        r.gpus_per_node);
    if (!dry_run) fail("{}", problem);
    fmt::print(stderr, "ratplus: warning: {}\n", problem);
  }
}

/// Checks that the job fits into GPUs of the given kind. Returns the expected time and memory as text.
std::string check_fits(const config::JobConfig& job, const SubmitArguments& args) {
  if (args.gpu.empty()) return "";
  std::string text;
  for (const int nodes : args.resources.possible_nodes()) {
    const plan::Cluster cluster{
        .gpu = &plan::find_gpu(args.gpu), .nodes = nodes, .gpus_per_node = args.resources.ranks_per_node};
    const auto plan = plan::plan_job(job, cluster);
    plan::require_fit(plan.memory, job, cluster);
    text += fmt::format("{}{}: {:.1f} of {:.1f} GiB a GPU; {:.0f} tokens/s a GPU expected{}\n",
                        args.resources.any_of_several() ? counted(nodes, "node") + ", " : "",
                        cluster.gpu->title, gib(plan.memory.bytes), gib(plan.memory.available),
                        plan.step.tokens_per_second() / cluster.ranks(),
                        plan.steps > 0 ? ", " + format_seconds(plan.seconds) + " for all steps" : "");
  }
  return text;
}

/// The data, once the job is known to fit every number of nodes that Slurm may give.
train::TrainingData check_data(const config::JobConfig& job, const slurm::Resources& r) {
  std::string refusal;
  std::vector<int> fitting;
  for (const int nodes : r.possible_nodes()) {
    try {
      train::check_ranks(job, r.rank_nodes(nodes));
      fitting.push_back(nodes);
    } catch (const Error& error) {
      if (refusal.empty()) refusal = fmt::format("with {}: {}", counted(nodes, "node"), error.what());
    }
  }
  if (r.any_of_several() && !refusal.empty()) {
    fail("--nodes {}: Slurm may give any number of these, and not all fit. {}. {}", r.nodes_text(), refusal,
         fitting.empty() ? std::string("None of these numbers of nodes fits")
                         : fmt::format("Numbers of nodes that fit: {}", fmt::join(fitting, ", ")));
  }
  return train::check_data(job, r.rank_nodes(r.nodes));
}

std::string describe(const config::JobConfig& job, const slurm::Resources& r, const train::Outlook& start) {
  std::string text = fmt::format("{}: {}, {} parameters, {}\n", job.job.directory, to_string(job.job.kind),
                                 model::parameter_count(job.model), start.text);
  for (const int nodes : r.possible_nodes()) {
    const int ranks = nodes * r.ranks_per_node;
    const std::int64_t at_once = std::int64_t{ranks} * job.data.micro_batch;
    text +=
        fmt::format("{} x {} = {}; batch {} = {} x {} of {}\n", counted(nodes, "node"), r.ranks_per_node,
                    counted(ranks, "rank"), job.data.batch, ranks,
                    counted(job.data.batch / at_once, "micro-batch", "micro-batches"), job.data.micro_batch);
  }
  if (!job.awaited.empty()) {
    text += fmt::format("{} gives these when the job starts, and general defaults stand for them here: {}\n",
                        job.job.from, fmt::join(job.awaited, ", "));
  }
  return text;
}

slurm::BatchScript script_of(const config::JobConfig& job, const SubmitArguments& args) {
  const fs::path run = fs::absolute(job.job.directory).lexically_normal();
  return {.name = "ratplus-" + (run.has_filename() ? run : run.parent_path()).filename().string(),
          .working_directory = fs::current_path(),
          .program = fs::read_symlink("/proc/self/exe"),
          .job_file = run / "submitted.toml",
          .log_directory = run,
          .launcher = args.launcher,
          .check_first = args.check,
          .resources = args.resources};
}

void submit(const config::JobConfig& job, const slurm::BatchScript& script) {
  const fs::path run = script.job_file.parent_path(), file = run / "submitted.sbatch",
                 note = run / "submitted.job";
  if (!slurm::available()) {
    fail(
        "there is no sbatch here: jobs are submitted on a login node of a Slurm cluster; --dry-run prints "
        "the script");
  }
  NewDirectories made(run, "job.directory");
  const FileLock one_at_a_time(run / ".submit.lock", run, "`ratplus submit`", FileLock::After::remove);
  slurm::check_not_queued(note);
  write_whole_file(script.job_file, config::to_toml(job));
  write_whole_file(file, script.text());
  const std::string number = slurm::submit(file);
  write_whole_file(note, number + "\n");
  made.keep();
  const std::string log = (run / fmt::format("slurm-{}.log", number)).string();
  fmt::print(
      "submitted job {}: {}\n"
      "  its place in the queue   squeue -j {}\n"
      "  its log                  tail -F {}\n"
      "  save, and end            scancel --batch --signal=INT {}\n"
      "  save, and queue again    scancel --batch --signal=USR1 {}\n",
      number, file.string(), number, log, number, number);
}

int submit(const SubmitArguments& args) {
  const auto& r = args.resources;
  const auto given = config::load_job(args.job, args.overrides,
                                      session::start_defaults);  // epochs stay epochs in what is written
  print_renamed_keys(given);
  const auto job = train::complete_schedule(given);
  const auto expected = check_fits(job, args);
  check_device(job, r, args.dry_run);
  const auto data = check_data(job, r);
  const auto start = train::look_ahead(job, data, !r.after.empty());
  if (start.finished) {
    fmt::print("{}: finished already, {}; nothing is submitted\n", job.job.directory, start.text);
    return 0;
  }
  fmt::print("{}{}", describe(job, r, start), expected);
  const auto script = script_of(job, args);
  if (args.dry_run) {
    fmt::print("\nsbatch {}\n\n{}", (script.job_file.parent_path() / "submitted.sbatch").string(),
               script.text());
    return 0;
  }
  submit(given, script);
  return 0;
}

}  // namespace

int submit_command(const Arguments& args) {
  const auto parsed = parse_submit(args);
  if (!parsed) return 0;
  refuse_ranks("submit");
  return submit(*parsed);
}

}  // namespace ratplus::apps
