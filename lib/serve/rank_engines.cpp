#include "lib/serve/rank_engines.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "base/background_thread.h"
#include "base/error.h"
#include "lib/serve/http_status.h"

namespace ratplus::serve {
namespace {

enum class Message : std::uint8_t {
  // From rank 0.
  work,
  cancel,
  cancel_tag,
  exchange,
  stop,
  // To rank 0.
  outputs,
  failed,
  load
};

// --- frames ------------------------------------------------------------------------------------------------------

void put(FrameWriter& to, const infer::SamplingParameters& x) {
  to.put(x.temperature), to.put(x.top_k), to.put(x.top_p), to.put(x.min_p), to.put(x.repetition_penalty);
  to.put(x.presence_penalty), to.put(x.frequency_penalty), to.put(x.penalize_prompt), to.put(x.seed);
  to.put(x.banned);
  to.put(x.biases.size());
  for (const auto& [token, bias] : x.biases) to.put(token), to.put(bias);
}

void take(FrameReader& from, infer::SamplingParameters& x) {
  from.take(x.temperature), from.take(x.top_k), from.take(x.top_p), from.take(x.min_p);
  from.take(x.repetition_penalty), from.take(x.presence_penalty), from.take(x.frequency_penalty);
  from.take(x.penalize_prompt), from.take(x.seed), from.take(x.banned);
  for (auto n = from.taken<std::size_t>(); n > 0; --n) {
    const auto token = from.taken<std::int32_t>();
    x.biases.emplace_back(token, from.taken<float>());
  }
}

std::string frame_of(std::uint64_t request, const Work& work) {
  FrameWriter to;
  to.put(Message::work), to.put(request), to.put(work.pattern);
  to.put(work.sequences.size());
  for (const auto& [tag, x] : work.sequences) {
    to.put(tag), to.put(x.prompt), to.put(x.max_tokens), to.put(x.stop_tokens);
    put(to, x.sampling);
    to.put(x.choice), to.put(x.log_probabilities.value_or(-1));
  }
  to.put(work.scores.size());
  for (const auto& [tag, x] : work.scores)
    to.put(tag), to.put(x.tokens), to.put(x.first), to.put(x.tops), to.put(x.next);
  return to.bytes();
}

Work work_of(FrameReader& from) {
  Work work;
  from.take(work.pattern);
  for (auto n = from.taken<std::size_t>(); n > 0; --n) {
    auto& [tag, x] = work.sequences.emplace_back();
    from.take(tag), from.take(x.prompt), from.take(x.max_tokens), from.take(x.stop_tokens);
    take(from, x.sampling);
    from.take(x.choice);
    if (const auto tops = from.taken<std::int64_t>(); tops >= 0) x.log_probabilities = tops;
  }
  for (auto n = from.taken<std::size_t>(); n > 0; --n) {
    auto& [tag, x] = work.scores.emplace_back();
    from.take(tag), from.take(x.tokens), from.take(x.first), from.take(x.tops), from.take(x.next);
  }
  return work;
}

std::string frame_of(std::uint64_t request, const std::vector<Output>& outputs) {
  FrameWriter to;
  to.put(Message::outputs), to.put(request), to.put(outputs.size());
  for (const auto& x : outputs) {
    to.put(x.tag), to.put(x.scores);
    if (x.scores) {
      to.put(x.scored.log_probability), to.put(x.scored.top);
    } else {
      to.put(x.event.request), to.put(x.event.token), to.put(x.event.end), to.put(x.event.log_probability);
      to.put(x.event.top);
    }
  }
  return to.bytes();
}

std::vector<Output> outputs_of(FrameReader& from) {
  std::vector<Output> outputs;
  for (auto n = from.taken<std::size_t>(); n > 0; --n) {
    auto& x = outputs.emplace_back();
    from.take(x.tag), from.take(x.scores);
    if (x.scores) {
      from.take(x.scored.log_probability), from.take(x.scored.top);
    } else {
      from.take(x.event.request), from.take(x.event.token), from.take(x.event.end);
      from.take(x.event.log_probability), from.take(x.event.top);
    }
  }
  return outputs;
}

std::string frame_of(Message message, std::uint64_t request, const std::string& text) {
  FrameWriter to;
  to.put(message), to.put(request), to.put(text);
  return to.bytes();
}

}  // namespace

// --- rank 0 ------------------------------------------------------------------------------------------------------

/// Counts what rank 0's own engine gives; that of the others is counted where it is read.
class RankEngines::Counted : public OutputTaker {
 public:
  Counted(RankEngines& of, std::uint64_t request, std::shared_ptr<OutputTaker> taker)
      : of_(of), request_(request), taker_(std::move(taker)) {}
  void take(std::vector<Output> outputs) override {
    of_.took(request_, outputs);
    taker_->take(std::move(outputs));
  }
  void fail(const std::string& why, int status) override { taker_->fail(why, status); }

 private:
  RankEngines& of_;
  std::uint64_t request_;
  std::shared_ptr<OutputTaker> taker_;
};

RankEngines::RankEngines(EngineLoop& own, std::vector<std::unique_ptr<Link>> links,
                         EngineLoop::Deliver deliver, std::function<void(int)> lost)
    : own_(own), deliver_(std::move(deliver)), lost_(std::move(lost)), tokens_(links.size() + 1) {
  for (auto& link : links) {
    remotes_.push_back(std::make_unique<Remote>());
    remotes_.back()->link = std::move(link);
  }
  for (std::size_t i = 0; i < remotes_.size(); ++i) {
    remotes_[i]->reader = std::thread([this, i] {
      leave_signals_to_main_thread();
      read(static_cast<int>(i) + 1);
    });
  }
}

RankEngines::~RankEngines() {
  close(0);
}

/// Rank 0 among equals: its requests are nearest.
int RankEngines::least_loaded() const {
  int best = 0;
  for (std::size_t i = 0; i < remotes_.size(); ++i) {
    if (!remotes_[i]->gone && tokens_[i + 1] < tokens_[static_cast<std::size_t>(best)])
      best = static_cast<int>(i) + 1;
  }
  return best;
}

void RankEngines::submit(std::uint64_t request, std::shared_ptr<OutputTaker> taker, Work work) {
  std::vector<Work> by_rank;
  std::shared_ptr<Counted> counted;
  {
    const std::lock_guard lock(mutex_);
    by_rank.resize(tokens_.size());
    for (auto& part : by_rank) part.pattern = work.pattern;
    auto& entry = requests_.try_emplace(request, Request{taker}).first->second;
    const auto assign = [&](const Key& key, int rank, std::int64_t tokens) {
      entry.parts[key] = {rank, tokens};
      tokens_[static_cast<std::size_t>(rank)] += tokens;
    };
    const infer::Request* before = nullptr;
    int rank = 0;
    for (auto& [tag, sequence] : work.sequences) {
      // Answers to one prompt compute it once, on one rank.
      if (before == nullptr || before->prompt != sequence.prompt) rank = least_loaded();
      assign({false, tag}, rank, std::ssize(sequence.prompt) + sequence.max_tokens);
      auto& to = by_rank[static_cast<std::size_t>(rank)].sequences;
      to.reserve(work.sequences.size());  // `before` stays where it is
      to.emplace_back(tag, std::move(sequence));
      before = &to.back().second;
    }
    for (auto& [tag, score] : work.scores) {
      rank = least_loaded();
      assign({true, tag}, rank, std::ssize(score.tokens));
      by_rank[static_cast<std::size_t>(rank)].scores.emplace_back(tag, std::move(score));
    }
    counted = std::make_shared<Counted>(*this, request, std::move(taker));
    // Within the lock, so that a cancel comes after it.
    for (std::size_t i = 0; i < remotes_.size(); ++i) {
      const auto& part = by_rank[i + 1];
      if (!part.sequences.empty() || !part.scores.empty()) remotes_[i]->link->send(frame_of(request, part));
    }
  }
  if (!by_rank.front().sequences.empty() || !by_rank.front().scores.empty())
    own_.submit(request, counted, std::move(by_rank.front()));
}

void RankEngines::send_cancel(int rank, std::uint64_t request, const std::size_t* tag) {
  FrameWriter to;
  to.put(tag == nullptr ? Message::cancel : Message::cancel_tag), to.put(request);
  if (tag != nullptr) to.put(*tag);
  remotes_[static_cast<std::size_t>(rank - 1)]->link->send(to.bytes());
}

void RankEngines::end_part(Request& request, const Key& key) {
  const auto found = request.parts.find(key);
  if (found == request.parts.end()) return;
  tokens_[static_cast<std::size_t>(found->second.rank)] -= found->second.tokens;
  request.parts.erase(found);
}

void RankEngines::cancel(std::uint64_t request) {
  own_.cancel(request);
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  std::set<int> ranks;
  for (const auto& [key, part] : found->second.parts) {
    tokens_[static_cast<std::size_t>(part.rank)] -= part.tokens;
    if (part.rank > 0) ranks.insert(part.rank);
  }
  for (const int rank : ranks) send_cancel(rank, request, nullptr);
  requests_.erase(found);
}

void RankEngines::cancel(std::uint64_t request, std::size_t tag) {
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  const auto part = found->second.parts.find({false, tag});
  if (part == found->second.parts.end()) return;
  if (part->second.rank == 0) {
    own_.cancel(request, tag);
  } else {
    send_cancel(part->second.rank, request, &tag);
  }
  end_part(found->second, {false, tag});
  if (found->second.parts.empty()) requests_.erase(found);
}

/// Lowers the counts by what came.
void RankEngines::took(std::uint64_t request, const std::vector<Output>& outputs) {
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  for (const auto& output : outputs) {
    if (output.scores || output.event.end != infer::End::none) {
      end_part(found->second, {output.scores, output.tag});
      continue;
    }
    const auto part = found->second.parts.find({false, output.tag});
    if (part == found->second.parts.end() || part->second.tokens <= 1) continue;
    --part->second.tokens;
    --tokens_[static_cast<std::size_t>(part->second.rank)];
  }
  if (found->second.parts.empty()) requests_.erase(found);
}

void RankEngines::read(int rank) {
  auto& remote = *remotes_[static_cast<std::size_t>(rank - 1)];
  while (auto frame = remote.link->receive()) {
    FrameReader from(*frame);
    const auto message = from.taken<Message>();
    if (message == Message::load) {
      const std::lock_guard lock(mutex_);
      from.take(remote.load);
      continue;
    }
    const auto request = from.taken<std::uint64_t>();
    std::shared_ptr<OutputTaker> taker;
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = requests_.find(request); found != requests_.end()) taker = found->second.taker;
    }
    if (!taker) continue;  // cancelled
    if (message == Message::outputs) {
      auto outputs = std::make_shared<std::vector<Output>>(outputs_of(from));
      took(request, *outputs);
      deliver_([taker = std::move(taker), outputs] { taker->take(std::move(*outputs)); });
    } else if (message == Message::failed) {
      deliver_(
          [taker = std::move(taker), why = from.taken<std::string>()] { taker->fail(why, unavailable); });
    }
  }
  rank_gone(rank);
}

void RankEngines::rank_gone(int rank) {
  std::vector<std::shared_ptr<OutputTaker>> takers;
  bool stopping = false;
  {
    const std::lock_guard lock(mutex_);
    remotes_[static_cast<std::size_t>(rank - 1)]->gone = true;
    stopping = stopping_;
    std::erase_if(requests_, [&](auto& entry) {
      auto& parts = entry.second.parts;
      if (std::ranges::none_of(parts, [&](const auto& part) { return part.second.rank == rank; }))
        return false;
      for (const auto& [key, part] : parts) tokens_[static_cast<std::size_t>(part.rank)] -= part.tokens;
      takers.push_back(entry.second.taker);
      return true;
    });
  }
  for (const auto& taker : takers) {
    deliver_([taker, rank] {
      taker->fail("rank " + std::to_string(rank) + " of the server, which computed the request, is gone",
                  server_failed);
    });
  }
  if (!stopping) lost_(rank);
}

void RankEngines::stop(std::string why) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    for (const auto& remote : remotes_) remote->link->send(frame_of(Message::stop, 0, why));
  }
  own_.stop(std::move(why));
}

void RankEngines::exchange(const std::string& text) {
  const std::lock_guard lock(mutex_);
  for (const auto& remote : remotes_) remote->link->send(frame_of(Message::exchange, 0, text));
}

EngineLoad RankEngines::load() const {
  auto sum = own_.load();
  const std::lock_guard lock(mutex_);
  for (const auto& remote : remotes_) {
    const auto& load = remote->load;
    sum.running += load.running, sum.waiting += load.waiting, sum.cache_share += load.cache_share;
    sum.prefixes.hits += load.prefixes.hits, sum.prefixes.tokens += load.prefixes.tokens;
    sum.prefixes.snapshots += load.prefixes.snapshots, sum.prefixes.bytes += load.prefixes.bytes;
  }
  sum.cache_share /= static_cast<double>(tokens_.size());
  return sum;
}

std::vector<std::int64_t> RankEngines::outstanding() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

void RankEngines::close(double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const auto all_gone = [&] {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    return std::ranges::all_of(remotes_, [](const auto& remote) { return remote->gone; });
  };
  while (!all_gone() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (const auto& remote : remotes_) remote->link->close();
  for (const auto& remote : remotes_) {
    if (remote->reader.joinable()) remote->reader.join();
  }
}

// --- other ranks -------------------------------------------------------------------------------------------------

namespace {

/// Sends what the engine gives to rank 0.
class Sender : public OutputTaker {
 public:
  Sender(Link& link, std::uint64_t request) : link_(link), request_(request) {}
  void take(std::vector<Output> outputs) override { link_.send(frame_of(request_, outputs)); }
  void fail(const std::string& why, int) override { link_.send(frame_of(Message::failed, request_, why)); }

 private:
  Link& link_;
  std::uint64_t request_;
};

/// Sends the load of a loop as long as it lives.
class LoadReport {
 public:
  LoadReport(const EngineLoop& loop, Link& link)
      : thread_([&loop, &link](const std::stop_token& stop) {
          leave_signals_to_main_thread();
          constexpr auto interval = std::chrono::milliseconds(50);
          while (!stop.stop_requested()) {
            FrameWriter to;
            to.put(Message::load), to.put(loop.load());
            if (!link.send(to.bytes())) return;
            std::this_thread::sleep_for(interval);
          }
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace

void serve_rank(infer::Inference& inference, std::size_t patterns, Link& link,
                const std::function<void(const std::string&)>& exchange) {
  EngineLoop loop(inference, patterns, [](const std::function<void()>& task) { task(); });
  std::atomic<bool> told = false;
  std::thread reader([&] {
    leave_signals_to_main_thread();
    while (auto frame = link.receive()) {
      FrameReader from(*frame);
      const auto message = from.taken<Message>();
      const auto request = from.taken<std::uint64_t>();
      if (message == Message::work) {
        loop.submit(request, std::make_shared<Sender>(link, request), work_of(from));
      } else if (message == Message::cancel) {
        loop.cancel(request);
      } else if (message == Message::cancel_tag) {
        loop.cancel(request, from.taken<std::size_t>());
      } else if (message == Message::exchange) {
        loop.between([&exchange, text = from.taken<std::string>()] { exchange(text); });
      } else if (message == Message::stop) {
        told = true;
        loop.stop(from.taken<std::string>());
      }
    }
    loop.stop("rank 0 is gone");
  });
  std::exception_ptr failure;
  {
    const LoadReport report(loop, link);
    try {
      loop.run();
    } catch (...) {
      failure = std::current_exception();
    }
  }
  link.close();
  reader.join();
  if (failure) std::rethrow_exception(failure);
  if (!told) fail("rank 0 of the server is gone");
}

}  // namespace ratplus::serve
