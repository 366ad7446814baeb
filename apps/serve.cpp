// ratplus serve: a model behind OpenAI's API for completions.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/with_ranks.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "lib/config/pattern_toml.h"
#include "lib/generate/model_text.h"
#include "lib/infer/inference.h"
#include "lib/serve/server.h"
#include "lib/session/start_defaults.h"
#include "lib/weights/source.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* serve_help =
    R"(usage: ratplus serve CHECKPOINT [--pattern D,W,I ...] [--port N] [options]
       mpirun -n 8 ratplus serve CHECKPOINT [options]

Serves a model over HTTP by OpenAI's API for completions: /v1/completions (streams included), /v1/chat/completions where there
is a chat template, /v1/models, /tokenize, /detokenize, /tokenizer_info, /health, /metrics and PUT /generate. CHECKPOINT is a
checkpoint's directory, a run's (then its newest), a file of PyTorch's (.pth), or safetensors. Requests are computed together and join and leave at every token.
With several --pattern, the weights are there once, and a client chooses by the model's name: ratplus@16,256,4. The name alone
means the first pattern. Under mpirun each rank of the host, one a GPU, has the model, and rank 0 deals requests to them.
SIGTERM or Ctrl-C ends the server after what runs, at most --grace seconds later; another one a second later ends it at once.
SIGHUP loads the newest weights at CHECKPOINT between two requests. docs/serving.md describes the API and what clients need.

)";

constexpr const char* serve_help_end = R"(
examples:
  ratplus serve runs/quickstart/adapt-d16
  ratplus serve ratplus-1b.pth --tokenizer tokenizer.model --pattern 1,0,0 --pattern 16,256,4 --port 9000
  curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "The idea of", "max_tokens": 32}'
)";

struct ServeArguments {
  std::string checkpoint;
  ModelOptions model;
  std::vector<std::string> patterns;
  EngineOptions engine;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string api_key_file;
  std::string chat_template;
  serve::ServerSettings server;
  serve::HttpSettings http;
  bool quiet = false;
};

void check_at_least(const po::variables_map& given, const char* option, double value, double least) {
  if (given.contains(option) && !(value >= least))
    throw po::error(fmt::format("--{} {} is below {}", option, value, least));
}

std::optional<ServeArguments> parse_serve(const Arguments& args) {
  ServeArguments parsed;
  auto& server = parsed.server;
  double body_mib = 16;
  po::options_description options("options", 110, 70);
  auto add = options.add_options();
  add("pattern", po::value(&parsed.patterns)->composing()->value_name("D,W,I"),
      "an attention pattern (as of `ratplus eval`); may be given again; default: the one in training");
  add("host", po::value(&parsed.host)->value_name("ADDRESS"),
      "the address to listen at; default: 127.0.0.1, this machine alone; 0.0.0.0: all");
  add("port", po::value(&parsed.port)->value_name("N"),
      "the port; default: 8000; 0: a free one, which is printed");
  add("name", po::value(&server.name)->value_name("NAME"), "the model's name for clients; default: ratplus");
  add("api-key-file", po::value(&parsed.api_key_file)->value_name("FILE"),
      "serve those alone who send the key in FILE; default: the key in RATPLUS_API_KEY, or everybody");
  add("chat-template", po::value(&parsed.chat_template)->value_name("FILE"),
      "serve /v1/chat/completions: a file with the template (Jinja), or a tokenizer_config.json; default: "
      "the "
      "tokenizer_config.json beside the tokenizer or the weights, if it has one");
  add("max-tokens", po::value(&server.max_tokens)->value_name("N"),
      "tokens of an answer at most; default: as many as a sequence has");
  add("max-answers", po::value(&server.request_sequences)->value_name("N"),
      "prompts times answers of a request at most; default: 4096");
  add("queue", po::value(&server.queue)->value_name("N"),
      "answers of all requests, waiting and in progress, at most; default: 8192; more get status 429");
  add("max-body", po::value(&body_mib)->value_name("MIB"), "bytes of a request at most; default: 16 MiB");
  add("max-connections", po::value(&parsed.http.connections)->value_name("N"),
      "connections at a time at most; default: 1024");
  add("time-limit", po::value(&server.time_limit_seconds)->value_name("SECONDS"),
      "end a request that takes longer, waiting included, with status 504; default: none does");
  add("grace", po::value(&server.grace_seconds)->value_name("SECONDS"),
      "time for what runs when the server ends; default: 30");
  add("log-text", po::bool_switch(&server.log_text), "log prompts, too: else numbers, sizes and times alone");
  add("quiet", po::bool_switch(&parsed.quiet), "log no requests");
  add_engine_options(options, parsed.engine);
  add_sequence_options(options, parsed.model);
  add_device_options(options, parsed.model);
  const Positional checkpoint{"checkpoint", 1, po::value(&parsed.checkpoint), "a checkpoint is missing",
                              "CHECKPOINT"};
  const auto given = parse_command_line(args, options, checkpoint, {serve_help, serve_help_end});
  if (!given) return std::nullopt;
  check_model_options(*given, parsed.model);
  constexpr int most_port = 65535;
  if (parsed.port < 0 || parsed.port > most_port)
    throw po::error(fmt::format("--port {} is not a number from 0 to {}", parsed.port, most_port));
  check_at_least(*given, "max-tokens", static_cast<double>(server.max_tokens), 1);
  check_at_least(*given, "max-answers", static_cast<double>(server.request_sequences), 1);
  check_at_least(*given, "queue", static_cast<double>(server.queue), 1);
  check_at_least(*given, "max-connections", static_cast<double>(parsed.http.connections), 1);
  check_engine_options(*given, parsed.engine);
  check_at_least(*given, "grace", server.grace_seconds, 0);
  check_at_least(*given, "time-limit", server.time_limit_seconds, 0.001);
  constexpr double most_mib = 4096;
  if (!(body_mib > 0) || body_mib > most_mib)
    throw po::error(fmt::format("--max-body {} is not a number of MiB up to {}", body_mib, most_mib));
  parsed.http.body_bytes = static_cast<std::int64_t>(body_mib * 1048576);
  if (parsed.host.empty()) throw po::error("--host is empty; 0.0.0.0 means all addresses");
  if (server.name.empty() || server.name.find('@') != std::string::npos)
    throw po::error(fmt::format("--name \"{}\" is empty or has an @, which begins a pattern", server.name));
  if (!parsed.patterns.empty()) parsed.model.request.pattern = parsed.patterns.front();
  for (std::size_t i = 0; i < parsed.patterns.size(); ++i) {
    if (std::ranges::count(parsed.patterns, parsed.patterns[i]) > 1)
      throw po::error(fmt::format("--pattern {} is given twice", parsed.patterns[i]));
  }
  return parsed;
}

/// The key in the file, or in the environment; empty: none.
std::string api_key(const ServeArguments& args) {
  const char* variable = std::getenv("RATPLUS_API_KEY");
  if (args.api_key_file.empty()) return variable != nullptr ? variable : "";
  auto key = read_whole_file(args.api_key_file);
  const auto begin = key.find_first_not_of(" \t\r\n");
  key = begin == std::string::npos ? "" : key.substr(begin, key.find_last_not_of(" \t\r\n") + 1 - begin);
  if (key.empty() || key.find('\n') != std::string::npos)
    fail("{}: holds no key; write one line with it", args.api_key_file);
  return key;
}

/// Reads the template: --chat-template, else tokenizer_config.json beside the tokenizer or the weights; empty: none.
std::filesystem::path chat_template(const ServeArguments& args) {
  if (!args.chat_template.empty()) return args.chat_template;
  for (const auto& given : {args.model.tokenizer, args.checkpoint}) {
    if (given.empty()) continue;
    const std::filesystem::path path(given);
    const auto directory = std::filesystem::is_directory(path) ? path : path.parent_path();
    if (const auto file = directory / "tokenizer_config.json"; serve::ChatTemplate::is_in(file)) return file;
  }
  return {};
}

/// Reads all weights, so that damaged ones are found while the old ones are there.
void read_whole(weights::WeightsSource& source) {
  constexpr std::int64_t piece = std::int64_t{1} << 22;
  std::vector<float> values(piece);
  for (std::size_t unit = 0; unit < source.units().size(); ++unit) {
    const auto count = source.units()[unit].numel;
    for (std::int64_t begin = 0; begin < count; begin += piece) {
      const auto end = std::min(begin + piece, count);
      weights::read_finite(source, unit, {begin, end}, values.data());
    }
  }
}

/// Loads the weights at `path`, if they are of the same model, whole, and finite: else the old ones stay, and it returns false.
bool exchange(const ServeArguments& args, infer::Inference& inference, const checkpoint::Info& old,
              const std::function<std::string()>& path) {
  auto source = [&]() -> std::shared_ptr<weights::WeightsSource> {
    try {
      auto model = infer::resolve(args.model.request, path());
      if (!(model.config == inference.model().config) || model.info().tokenizer != old.tokenizer)
        fail("{}: holds another model or tokenizer than the one that is served; start another server",
             model.info().directory.string());
      if (!inference.keeps(model)) {
        fail(
            "{}: not all of its weights are bfloat16, and this server keeps weights in bfloat16; start it "
            "anew, with "
            "--precision f32 to exchange both kinds",
            model.info().directory.string());
      }
      read_whole(*model.source);
      return model.source;
    } catch (const std::exception& error) {  // also of the file system
      print_error(std::string(error.what()) + "; the weights before stay");
      return nullptr;
    }
  }();
  if (!source) return false;
  const ElapsedTime time;
  inference.load(*source);
  print_error(fmt::format("weights of {} after {:.1f} s", source->info().directory.string(), time.seconds()));
  return true;
}

/// The first SIGTERM or SIGINT ends the server in order, a later one at once; SIGHUP exchanges weights.
void follow_signals(serve::HttpServer& http, serve::Server& server, std::function<void()> hang_up) {
  const auto first = std::make_shared<std::optional<ElapsedTime>>();
  http.on_signals({SIGTERM, SIGINT, SIGHUP}, [&server, first, hang_up = std::move(hang_up)](int signal) {
    // One request to end often comes twice (timeout(1) signals its child and then its group).
    constexpr double same_request = 1;
    if (signal == SIGHUP) {
      server.exchange_weights(hang_up);
    } else if (!*first) {
      first->emplace();
      server.stop();
    } else if ((*first)->seconds() > same_request) {
      std::_Exit(ended_by(signal));
    }
  });
}

/// A model on every rank, and what is served of it.
struct Opened {
  infer::ResolvedModel model;
  generate::ModelText text;
  infer::ServingRequest serving;
  std::unique_ptr<infer::Inference> inference;
};

void open_model(ServeArguments& args, const parallel::World& world, Opened& opened) {
  const auto checkpoint = world.from_root([&] { return weights::resolve(args.checkpoint).string(); });
  world.agree([&] {
    auto& [model, text, serving, inference] = opened;
    model = infer::resolve(args.model.request, checkpoint);
    text = generate::find_text(model.info(), args.model.tokenizer, args.model.end_of_text);
    serving.request = args.engine.request;
    for (const auto& pattern : args.patterns)
      serving.plans.push_back(config::parse_plan(pattern, "--pattern"));
    args.server.patterns = args.patterns;
    if (args.patterns.empty()) {
      serving.plans.push_back(model.plan);
      args.server.patterns.push_back(model.plan.describe());
    }
    if (!world.root()) return;
    for (const auto& plan : serving.plans) {
      const auto note = session::other_pattern_note(model.info(), plan);
      if (!note.empty()) print_error("note: " + note);
    }
    if (!text.tokenizer)
      print_error("note: prompts are token numbers, since there is no tokenizer: " + text.missing);
    if (const auto file = chat_template(args);
        !file.empty() && (text.tokenizer || !args.chat_template.empty()))
      args.server.chat = std::make_shared<const serve::ChatTemplate>(file, text);
  });
  opened.inference = std::make_unique<infer::Inference>(opened.model, opened.serving, world);
  world.agree([&] { opened.inference->load(); });
}

/// Another rank than 0, which takes the signals for all.
int serve_part(const ServeArguments& args, const parallel::World& world, Opened& opened,
               const std::string& address) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) std::signal(signal, SIG_IGN);
  const auto link = serve::LinkPort::connect(address, world.rank());
  serve::serve_rank(*opened.inference, opened.serving.plans.size(), *link, [&](const std::string& path) {
    if (!exchange(args, *opened.inference, opened.model.info(), [&] { return path; }))
      fail("{}: cannot be loaded here, and rank 0 has these weights", path);
  });
  return 0;
}

int serve_model(ServeArguments args, const parallel::World& world) {
  if (world.local_size() < world.size())
    throw parallel::AgreedError(
        "serve: the ranks are on several hosts; start a server on each, and a proxy before them");
  // Of a start that lasts: weights are read now, and a terminal that is gone ends a server neither now nor later.
  std::signal(SIGHUP, SIG_IGN);
  std::optional<serve::HttpServer> http;
  world.agree([&] {
    if (!world.root()) return;
    args.server.api_key = api_key(args);
    http.emplace(args.host, args.port, args.http);
  });
  Opened opened;
  open_model(args, world, opened);
  auto& inference = *opened.inference;
  std::optional<serve::LinkPort> port;
  const auto address = world.from_root([&] {
    if (world.size() == 1) return std::string();
    return port.emplace().address();
  });
  if (!world.root()) return serve_part(args, world, opened, address);
  std::vector<std::unique_ptr<serve::Link>> links;
  constexpr double patience = 60;
  if (port) links = port->accept(world.size() - 1, patience);
  port.reset();
  // Standard output and error may be pipes that nobody reads any more: a server goes on.
  std::signal(SIGPIPE, SIG_IGN);
  if (!args.quiet)
    args.server.log = [](const std::string& line) {
      std::fputs(("ratplus: " + line + "\n").c_str(), stderr);
    };
  args.server.warn = [](const std::string& line) { print_error(line); };
  args.server.threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency() / 4, 2U, 16U));
  serve::Server server(args.server, *http, inference, opened.text, std::move(links));
  follow_signals(*http, server, [&] {
    std::string path;
    if (exchange(args, inference, opened.model.info(),
                 [&] { return path = weights::resolve(args.checkpoint).string(); }))
      server.exchange_elsewhere(path);
  });
  const auto& engine = inference.engine().settings();
  http->listen();  // who reads the address may go there at once
  fmt::print("{} serves {}\n{} of up to {} at a time, weights {}, caches and buffers {}\n", http->address(),
             fmt::join(server.model_names(), ", "), counted(engine.slots, "sequence"),
             counted(engine.tokens, "token"), format_bytes(inference.weight_bytes()),
             format_bytes(inference.bytes() - inference.weight_bytes()));
  if (world.size() > 1)
    fmt::print("{}, each with as much; signals are for rank 0, process {}\n", counted(world.size(), "rank"),
               getpid());
  std::fflush(stdout);
  if (server.run()) return 0;
  world.abort(1);
}

}  // namespace

int serve_command(const Arguments& args) {
  auto parsed = parse_serve(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return serve_model(*parsed, world); });
}

}  // namespace ratplus::apps
