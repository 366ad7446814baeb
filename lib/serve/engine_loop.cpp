#include "lib/serve/engine_loop.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <utility>

#include "lib/serve/http_status.h"

namespace ratplus::serve {
EngineLoop::EngineLoop(infer::Inference& inference, std::size_t patterns, Deliver deliver)
    : inference_(inference), deliver_(std::move(deliver)), patterns_(patterns) {}

void EngineLoop::submit(std::uint64_t request, std::shared_ptr<OutputTaker> taker, Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      commands_.push_back({Command::Kind::add, request, 0, std::move(taker), std::move(work)});
      changed_.notify_one();
      return;
    }
  }
  deliver_([taker = std::move(taker), why = why_] { taker->fail(why, unavailable); });
}

void EngineLoop::cancel(std::uint64_t request) {
  const std::lock_guard lock(mutex_);
  commands_.push_back({Command::Kind::cancel, request});
  changed_.notify_one();
}

void EngineLoop::cancel(std::uint64_t request, std::size_t tag) {
  const std::lock_guard lock(mutex_);
  commands_.push_back({Command::Kind::cancel_tag, request, tag});
  changed_.notify_one();
}

void EngineLoop::between(std::function<void()> f) {
  const std::lock_guard lock(mutex_);
  between_.push_back(std::move(f));
  changed_.notify_one();
}

void EngineLoop::stop(std::string why) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(stopping_, true)) return;
  why_ = std::move(why);
  changed_.notify_one();
}

EngineLoad EngineLoop::load() const {
  return {.running = running_,
          .waiting = waiting_,
          .cache_share = cache_share_,
          .prefixes = {.hits = prefix_hits_,
                       .tokens = prefix_tokens_,
                       .snapshots = prefix_snapshots_,
                       .bytes = prefix_bytes_}};
}

void EngineLoop::run() {
  try {
    std::vector<Command> commands;
    while (wait_for_commands(commands)) {
      for (auto& command : commands) apply(command);
      commands.clear();
      if (busy()) pass();
      measure();
    }
    fail_all(why_);
  } catch (const std::exception& error) {
    stop(error.what());
    fail_all(error.what());
    throw;
  }
}

/// Waits where there is nothing to compute. False: stop() was called.
bool EngineLoop::wait_for_commands(std::vector<Command>& commands) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || !commands_.empty() || !between_.empty() || busy(); });
  if (stopping_) return false;
  std::swap(commands, commands_);
  if (between_.empty()) return true;
  if (busy()) {
    // Requests that run go on, those that come wait. What is cancelled of the latter goes from held_.
    const auto waits = std::stable_partition(commands.begin(), commands.end(), [&](const Command& command) {
      return command.kind != Command::Kind::add || jobs_.contains(command.request);
    });
    std::move(waits, commands.end(), std::back_inserter(held_));
    commands.erase(waits, commands.end());
    return true;
  }
  // All in the order in which it came; in held_, whose takers a failure tells.
  std::move(commands.begin(), commands.end(), std::back_inserter(held_));
  commands.clear();
  const auto exchanges = std::exchange(between_, {});
  lock.unlock();
  for (const auto& f : exchanges) f();
  std::swap(commands, held_);
  return true;
}

void EngineLoop::apply(Command& command) {
  switch (command.kind) {
    case Command::Kind::add:
      add(command);
      break;
    case Command::Kind::cancel:
      remove(command.request, nullptr);
      break;
    case Command::Kind::cancel_tag:
      remove(command.request, &command.tag);
      break;
  }
}

void EngineLoop::add(Command& command) {
  auto& job = jobs_.try_emplace(command.request, Job{command.taker, command.work.pattern}).first->second;
  auto& pattern = patterns_[job.pattern];
  for (auto& [tag, request] : command.work.sequences) {
    const auto number = inference_.engine(job.pattern).add(std::move(request));
    pattern.places[number] = {command.request, tag};
    job.sequences[tag] = number;
  }
  for (auto& [tag, request] : command.work.scores)
    pattern.scores.push_back({{command.request, tag}, std::move(request)});
  job.scores += command.work.scores.size();
  if (job.done()) jobs_.erase(command.request);
}

/// All of a request, or what has this tag.
void EngineLoop::remove(std::uint64_t request, const std::size_t* tag) {
  const auto of_tag = [&](std::size_t other) { return tag == nullptr || *tag == other; };
  std::erase_if(held_, [&](const Command& command) { return command.request == request && tag == nullptr; });
  const auto found = jobs_.find(request);
  if (found == jobs_.end()) return;
  auto& job = found->second;
  auto& pattern = patterns_[job.pattern];
  std::erase_if(job.sequences, [&](const auto& sequence) {
    if (!of_tag(sequence.first)) return false;
    inference_.engine(job.pattern).cancel(sequence.second);
    pattern.places.erase(sequence.second);
    return true;
  });
  if (tag == nullptr && job.scores > 0) {
    job.scores -=
        std::erase_if(pattern.scores, [&](const Score& score) { return score.place.request == request; });
  }
  if (job.done()) jobs_.erase(found);
}

/// Every pattern's turn: a step of its sequences, and a pass of texts to score.
void EngineLoop::pass() {
  for (std::size_t p = 0; p < patterns_.size(); ++p) {
    Outputs outputs;
    if (!inference_.engine(p).idle()) step(p, outputs);
    if (!patterns_[p].scores.empty()) score(p, outputs);
    hand_out(outputs);
  }
}

void EngineLoop::step(std::size_t p, Outputs& outputs) {
  auto& places = patterns_[p].places;
  for (auto& event : inference_.engine(p).step()) {
    const auto found = places.find(event.request);
    const auto [request, tag] = found->second;
    const bool ended = event.end != infer::End::none;
    outputs[request].push_back({.tag = tag, .event = std::move(event)});
    if (!ended) continue;
    places.erase(found);
    auto& job = jobs_.at(request);
    job.sequences.erase(tag);
  }
}

/// As many texts as fit one pass.
void EngineLoop::score(std::size_t p, Outputs& outputs) {
  auto& scorer = inference_.scorer(p);
  auto& queue = patterns_[p].scores;
  std::vector<Place> places;
  std::vector<infer::ScoreRequest> requests;
  for (std::int64_t rows = 0; !queue.empty(); queue.pop_front()) {
    rows += std::ssize(queue.front().request.tokens);
    if (!requests.empty() && rows > scorer.settings().rows) break;
    places.push_back(queue.front().place);
    requests.push_back(std::move(queue.front().request));
  }
  scorer.score(requests, [&](std::size_t i, infer::Scored scored) {
    outputs[places[i].request].push_back({.tag = places[i].tag, .scores = true, .scored = std::move(scored)});
    --jobs_.at(places[i].request).scores;
  });
}

void EngineLoop::hand_out(Outputs& outputs) {
  if (outputs.empty()) return;
  std::vector<std::pair<std::shared_ptr<OutputTaker>, std::vector<Output>>> batch;
  for (auto& [request, of_request] : outputs) {
    const auto found = jobs_.find(request);
    batch.emplace_back(found->second.taker, std::move(of_request));
    if (found->second.done()) jobs_.erase(found);
  }
  deliver_([batch = std::make_shared<decltype(batch)>(std::move(batch))] {
    for (auto& [taker, of_taker] : *batch) taker->take(std::move(of_taker));
  });
}

void EngineLoop::fail_all(const std::string& why) {
  std::vector<std::shared_ptr<OutputTaker>> takers;
  for (const auto& [request, job] : jobs_) takers.push_back(job.taker);
  {
    const std::lock_guard lock(mutex_);
    for (auto* waiting : {&commands_, &held_}) {
      for (const auto& command : *waiting) {
        if (command.kind == Command::Kind::add) takers.push_back(command.taker);
      }
      waiting->clear();
    }
  }
  jobs_.clear();
  deliver_([takers = std::move(takers), why] {
    for (const auto& taker : takers) taker->fail(why, unavailable);
  });
}

void EngineLoop::measure() {
  std::int64_t running = 0, waiting = 0, used = 0, all = 0;
  for (std::size_t p = 0; p < patterns_.size(); ++p) {
    const auto& engine = inference_.engine(p);
    const auto& settings = engine.settings();
    running += engine.running();
    waiting += engine.waiting() + std::ssize(patterns_[p].scores);
    used += engine.caches().bytes_in_use();
    all += static_cast<std::int64_t>(
        settings.sequences *
        static_cast<double>(engine.shape().sequence_bytes(settings.tokens, inference_.ops().compute_type())));
  }
  running_ = running, waiting_ = waiting;
  const auto prefixes = inference_.prefix_use();
  prefix_hits_ = prefixes.hits, prefix_tokens_ = prefixes.tokens;
  prefix_snapshots_ = prefixes.snapshots, prefix_bytes_ = prefixes.bytes;
  cache_share_ = all == 0 ? 0 : std::min(1.0, static_cast<double>(used) / static_cast<double>(all));
}

}  // namespace ratplus::serve
