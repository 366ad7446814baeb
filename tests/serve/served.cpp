#include "tests/serve/served.h"

#include <sentencepiece_trainer.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>

#include "base/error.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

fs::path sentencepiece_model(const fs::path& directory) {
  std::ofstream text(directory / "text");
  for (int i = 0; i < 3000; ++i)
    text << (i % 7 == 0 ? "Question " : i % 5 == 0 ? "answer " : "of the ") << (i % 11 == 0 ? "\n" : "");
  text.close();
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      "--minloglevel=2 --model_type=bpe --vocab_size=310 --byte_fallback --normalization_rule_name=identity "
      "--remove_extra_whitespaces=false --hard_vocab_limit=false --input=" +
      (directory / "text").string() + " --model_prefix=" + (directory / "m").string());
  if (!status.ok()) fail("{}", status.ToString());
  return directory / "m.model";
}

generate::ModelText make_text() {
  const ScratchDirectory scratch;
  generate::ModelText text{.model_tokens = 320};
  text.tokenizer.emplace(sentencepiece_model(scratch.path()));
  text.end_of_text = text.tokenizer->end_of_text();
  return text;
}

}  // namespace

SmallModel::SmallModel(std::int64_t tokens, double init_std)
    : plans{model::PatternPlan(Pattern{16, 24, 4}), model::PatternPlan()}, patterns{"16,24,4", "1,0,0"} {
  model.config = {.layers = 2,
                  .width = 32,
                  .head_dim = 16,
                  .vocab_size = text().model_tokens,
                  .mixers = {{}},
                  .init_std = init_std};
  model.plan = plans.front();
  model.trained_tokens = model.tokens = tokens;
  model.device = DeviceChoice::cpu;
  model.precision = DType::f32;
  model.threads = 1;
}

const generate::ModelText& SmallModel::text() {
  static const generate::ModelText text = make_text();
  return text;
}

infer::ServingRequest Served::serving_request(const Settings& settings) {
  return {.plans = settings.model.plans,
          .request = {.slots = settings.slots, .rows = 256, .prefix_bytes = settings.prefix_bytes}};
}

Served::Served(Settings settings) {
  std::promise<void> ready;
  settings.server.patterns = settings.model.patterns;
  thread_ = std::thread([this, &ready, settings = std::move(settings)] {
    try {
      const auto world = parallel::World::solo();
      serve::HttpServer http("127.0.0.1", 0, settings.http);
      static const generate::ModelText without{.model_tokens = SmallModel::text().model_tokens,
                                               .missing = "there is none"};
      infer::Inference inference(settings.model.model, serving_request(settings), world);
      inference.set_initial(SmallModel::seed);
      serve::Server server(settings.server, http, inference,
                           settings.with_text ? SmallModel::text() : without, start_ranks(settings));
      port_ = http.port(), server_ = &server, inference_ = &inference;
      http.after(0, [&ready] { ready.set_value(); });
      try {
        complete_ = server.run();
      } catch (...) {
        failure_ = std::current_exception();
      }
      may_go_.get_future().wait();
    } catch (...) {
      failure_ = std::current_exception();
    }
  });
  ready.get_future().wait();
}

std::vector<std::unique_ptr<serve::Link>> Served::start_ranks(const Settings& settings) {
  const char* given = std::getenv("RATPLUS_TEST_SERVE_RANKS");
  const int count = settings.ranks > 0 ? settings.ranks : given != nullptr ? std::atoi(given) : 1;
  std::vector<std::unique_ptr<serve::Link>> links;
  for (int r = 1; r < count; ++r) {
    auto [root, end] = serve::Link::pair();
    links.push_back(std::move(root));
    ranks_.push_back({std::move(end), {}});
  }
  for (auto& rank : ranks_) {
    rank.thread = std::thread([&rank, settings] {
      try {
        const auto world = parallel::World::solo();
        infer::Inference inference(settings.model.model, serving_request(settings), world);
        inference.set_initial(SmallModel::seed);
        serve::serve_rank(inference, settings.model.plans.size(), *rank.link,
                          [&](const std::string& seed) { inference.set_initial(std::stoull(seed)); });
      } catch (const std::exception&) {
        // Lost, as a test wants it.
      }
    });
  }
  return links;
}

Served::~Served() {
  if (!thread_.joinable()) return;
  server_->stop();
  may_go_.set_value();
  thread_.join();
  join_ranks();
}

void Served::join_ranks() {
  for (auto& rank : ranks_) {
    if (rank.thread.joinable()) rank.thread.join();
  }
}

bool Served::becomes_idle() {
  for (int i = 0; i < 12000; ++i) {
    if (server_->outstanding() == 0 && server_->load().running == 0 && server_->load().waiting == 0)
      return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

void Served::join() {
  may_go_.set_value();
  thread_.join();
  join_ranks();
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace ratplus::test
