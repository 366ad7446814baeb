#include "lib/infer/engine.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "base/units.h"

namespace ratplus::infer {
namespace {

/// Entries of one adjustment of logits; more are several.
constexpr std::int64_t most_entries = std::int64_t{1} << 16;
/// Rows that are drawn at a time where their log-probabilities are asked for and penalties change their logits.
constexpr std::int64_t unchanged_rows = 64;
/// Snapshots that one prompt leaves at most, and waiting prompts to which it is compared.
constexpr std::size_t most_cuts = 4, most_compared = 64;

Pass::Settings pass_settings(const EngineSettings& settings) {
  return {.rows = std::max(settings.rows, settings.slots + prompt_cut),
          .steps = settings.slots,
          .logits = settings.slots,
          .tokens = settings.tokens,
          .rope_scale = settings.rope_scale};
}

/// With snapshots where they are asked for.
Caches::Settings caches_settings(const CacheShape& shape, const EngineSettings& settings, DType compute) {
  const Caches::Settings plain{
      .slots = settings.slots, .tokens = settings.tokens, .sequences = settings.sequences};
  return Caches::with_snapshots(shape, plain, settings.prefix_bytes, std::min(prompt_cut, settings.tokens),
                                compute);
}

}  // namespace

Engine::Engine(const model::PatternPlan& plan, const EngineSettings& settings, const Weights& weights,
               Ops& ops, Arena& arena)
    : settings_(settings),
      weights_(weights),
      ops_(ops),
      caches_(
          CacheShape(weights.config(), plan, settings.tokens),
          caches_settings(CacheShape(weights.config(), plan, settings.tokens), settings, ops.compute_type()),
          ops, arena),
      prefixes_(caches_),
      pass_(caches_.shape(), pass_settings(settings), weights, &caches_, ops, arena) {
  const auto slots = settings.slots, tops = std::min(most_tops, weights.config().vocab_size);
  sampled_ = arena.allocate(DType::i32, {slots});
  rules_ = arena.allocate(DType::f32, {5 * slots});
  log_probability_ = arena.allocate(DType::f32, {slots});
  top_tokens_ = arena.allocate(DType::i32, {slots * tops});
  top_log_probability_ = arena.allocate(DType::f32, {slots * tops});
  for (Tensor* x : {&entry_row_, &entry_token_}) *x = arena.allocate(DType::i32, {most_entries});
  for (Tensor* x : {&entry_factor_, &entry_addend_}) *x = arena.allocate(DType::f32, {most_entries});
  unchanged_ = arena.allocate(DType::f32, {std::min(slots, unchanged_rows), weights.config().vocab_size});
}

std::int64_t Engine::least_prefix_bytes(const CacheShape& shape, const EngineSettings& settings,
                                        DType compute) {
  return Caches::snapshot_bytes(shape, {.slots = settings.slots, .tokens = settings.tokens},
                                std::min(prompt_cut, settings.tokens), compute);
}

void Engine::check_prefix_bytes(const model::ModelConfig& config, const model::PatternPlan& plan,
                                const EngineSettings& settings, DType compute, bool shared) {
  if (settings.prefix_bytes == 0) return;
  const auto least = least_prefix_bytes(CacheShape(config, plan, settings.tokens), settings, compute);
  if (settings.prefix_bytes >= least) return;
  constexpr double mib = 1024;
  fail(
      "--prefix-cache: {:.1f} MiB{} hold no prefix under the pattern {}, which takes {:.1f} MiB; give more, "
      "or leave the "
      "option out",
      gib(settings.prefix_bytes) * mib, shared ? " for each pattern" : "", plan.describe(), gib(least) * mib);
}

PrefixUse Engine::prefix_use() const {
  auto use = use_;
  use.snapshots = caches_.snapshots(), use.bytes = caches_.snapshot_bytes_in_use();
  return use;
}

void Engine::prepare() {
  caches_.prepare();
  pass_.prepare();
}

void Engine::check(const Request& request, const std::string& where) const {
  const auto vocabulary = weights_.config().vocab_size;
  if (request.prompt.empty()) fail("{}: the prompt is empty; give at least one token", where);
  const auto in_vocabulary = [&](std::span<const std::int32_t> tokens, const char* what) {
    for (const auto token : tokens) {
      if (token < 0 || token >= vocabulary)
        fail("{}: {} {} is outside the model's vocabulary of {}", where, what, token, vocabulary);
    }
  };
  in_vocabulary(request.prompt, "token");
  in_vocabulary(request.stop_tokens, "stop token");
  if (request.max_tokens < 1) fail("{}: {} tokens are asked for; at least 1", where, request.max_tokens);
  const auto prompt = std::ssize(request.prompt);
  if (request.max_tokens > settings_.tokens - prompt) {
    fail(
        "{}: the prompt has {} and {} more are asked for, and a sequence has at most {}; ask for fewer, cut "
        "the prompt (left or middle), or give more tokens (--length)",
        where, counted(prompt, "token"), request.max_tokens, settings_.tokens);
  }
  if (request.log_probabilities && (*request.log_probabilities < 0 || *request.log_probabilities > most_tops))
    fail("{}: {} log-probabilities a token are asked for; at most {}", where, *request.log_probabilities,
         most_tops);
  infer::check(request.sampling, vocabulary, where);
}

std::int64_t Engine::add(Request request) {
  TokenCounts counts(request.sampling, request.prompt);
  PromptBlocks blocks;
  if (prefixes_.on()) blocks = PromptBlocks(request.prompt);
  waiting_.push_back({.number = next_,
                      .request = std::move(request),
                      .counts = std::move(counts),
                      .blocks = std::move(blocks)});
  return next_++;
}

std::int64_t Engine::add_at(std::int64_t length, std::int64_t max_tokens) {
  Request request{.prompt = {0}, .max_tokens = max_tokens + 1, .sampling = {.temperature = 0}};
  TokenCounts counts(request.sampling, request.prompt);
  Sequence sequence{.number = next_,
                    .request = std::move(request),
                    .counts = std::move(counts),
                    .prefilled = 1,
                    .generated = {0}};
  sequence.slot = caches_.open(length + max_tokens);
  caches_.advance(sequence.slot, length);
  running_.push_back(std::move(sequence));
  return next_++;
}

void Engine::cancel(std::int64_t request) {
  std::erase_if(waiting_, [&](const Sequence& s) { return s.number == request; });
  std::erase_if(running_, [&](const Sequence& s) {
    if (s.number != request) return false;
    caches_.drop(s.slot);
    return true;
  });
  // The waiting sequence with the most room computes the prompt, for all that find what they need in its cache.
  for (;;) {
    Sequence* leader = nullptr;
    for (auto& s : running_) {
      if (s.leader == request && (leader == nullptr || s.tokens() > leader->tokens())) leader = &s;
    }
    if (leader == nullptr) return;
    leader->leader = -1;
    for (auto& s : running_) {
      if (s.leader == request &&
          caches_.has_all(leader->tokens(), std::ssize(leader->request.prompt), s.tokens()))
        s.leader = leader->number;
    }
    lead(*leader);
  }
}

/// A sequence that waited for its prompt computes it: from the longest snapshot on.
void Engine::lead(Sequence& s) {
  if (!prefixes_.on()) return;
  const auto found = prefixes_.find(s.request.prompt, s.blocks);
  if (found.slot >= 0) {
    caches_.fork(found.slot, s.slot);
    s.prefilled = found.tokens;
    count_hit(found.tokens);
  }
  plan_cuts(s);
}

/// The last generated token is never read again: it needs no place.
void Engine::admit() {
  while (!waiting_.empty()) {
    auto& next = waiting_.front();
    const auto tokens = next.tokens();
    const auto leader = std::ranges::find_if(running_, [&](const Sequence& s) {
      return s.prefills() && s.request.prompt == next.request.prompt &&
             caches_.has_all(s.tokens(), std::ssize(s.request.prompt), tokens);
    });
    if (leader != running_.end()) {
      if (!caches_.fits(tokens)) return;
      next.slot = caches_.open(tokens);
      next.leader = leader->number;
    } else {
      const auto found = prefixes_.find(next.request.prompt, next.blocks);
      if (awaits_prefix(next, found.tokens) || !caches_.fits(tokens, found.slot)) return;
      next.slot = found.slot < 0 ? caches_.open(tokens) : caches_.copy(found.slot, tokens);
      next.prefilled = found.tokens;
      if (found.slot >= 0) count_hit(found.tokens);
      plan_cuts(next);
    }
    running_.push_back(std::move(next));
    waiting_.pop_front();
  }
}

void Engine::count_hit(std::int64_t tokens) {
  ++use_.hits;
  use_.tokens += tokens;
}

/// Whether a sequence is about to compute a longer beginning of this one's prompt than the `found` tokens that are there.
bool Engine::awaits_prefix(const Sequence& next, std::int64_t found) const {
  const auto most = (std::ssize(next.request.prompt) - 1) / prompt_cut * prompt_cut;
  return std::ranges::any_of(running_, [&](const Sequence& s) {
    if (!s.prefills() || s.cuts.empty()) return false;
    const auto common = std::min(s.blocks.common(next.blocks), most);
    return s.cuts.front() > found && s.cuts.front() <= common;
  });
}

/// Where this prompt leaves snapshots: at its last block, where it parts from a prompt that was there, and where those that wait
/// part from it.
void Engine::plan_cuts(Sequence& s) const {
  if (!prefixes_.on()) return;
  const auto last = (std::ssize(s.request.prompt) - 1) / prompt_cut * prompt_cut;
  s.cuts = {last, std::min(prefixes_.known(s.blocks), last)};
  for (std::size_t i = 0; i < std::min(waiting_.size(), most_compared); ++i) {
    if (waiting_[i].number != s.number) s.cuts.push_back(std::min(s.blocks.common(waiting_[i].blocks), last));
  }
  std::erase_if(s.cuts,
                [&](std::int64_t cut) { return cut <= s.prefilled || !caches_.could_keep(s.tokens(), cut); });
  std::ranges::sort(s.cuts);
  s.cuts.erase(std::unique(s.cuts.begin(), s.cuts.end()), s.cuts.end());
  if (s.cuts.size() > most_cuts) s.cuts.erase(s.cuts.begin(), s.cuts.end() - most_cuts);
}

End Engine::end_of(const Sequence& s) const {
  const auto token = s.generated.back();
  if (token < 0) return End::not_finite;
  if (std::ranges::count(s.request.stop_tokens, token) > 0) return End::stop_token;
  return std::ssize(s.generated) == s.request.max_tokens ? End::length : End::none;
}

std::vector<Event> Engine::step() {
  admit();
  if (running_.empty()) return {};
  std::vector<Piece> pieces;
  std::vector<Step> steps;
  std::vector<std::int64_t> rows;                              // whose logits are wanted
  std::vector<std::size_t> of_pieces, of_steps;                // their sequences
  std::vector<std::size_t> cut;                                // sequences that leave a snapshot
  std::vector<std::pair<std::size_t, std::size_t>> followers;  // and their leaders
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (running_[i].ready()) {
      steps.push_back({running_[i].slot, running_[i].generated.back()});
      of_steps.push_back(i);
    }
  }
  std::int64_t used = 0;
  const auto room = pass_.settings().rows - std::ssize(steps);
  for (std::size_t i = 0; i < running_.size() && room - used >= prompt_cut; ++i) {
    auto& s = running_[i];
    if (!s.prefills()) continue;
    const auto end = s.cuts.empty() ? std::ssize(s.request.prompt) : s.cuts.front();
    const auto n = std::min(end - s.prefilled, (room - used) / prompt_cut * prompt_cut);
    pieces.push_back({s.slot, s.prefilled,
                      std::span(s.request.prompt)
                          .subspan(static_cast<std::size_t>(s.prefilled), static_cast<std::size_t>(n))});
    s.prefilled += n;
    used += n;
    if (!s.cuts.empty() && s.prefilled == s.cuts.front()) {
      s.cuts.erase(s.cuts.begin());
      cut.push_back(i);
    }
    if (!s.ready()) continue;
    rows.push_back(used - 1);
    of_pieces.push_back(i);
    for (std::size_t j = 0; j < running_.size(); ++j) {
      if (running_[j].leader != s.number) continue;
      followers.emplace_back(j, i);
      rows.push_back(used - 1);
      of_pieces.push_back(j);
    }
  }
  for (std::size_t i = 0; i < steps.size(); ++i) rows.push_back(used + static_cast<std::int64_t>(i));
  pass_.run(pieces, steps, rows);
  for (const auto i : cut) prefixes_.keep(running_[i].slot, running_[i].request.prompt, running_[i].blocks);
  for (const auto& [follower, leader] : followers) {
    auto& s = running_[follower];
    caches_.fork(running_[leader].slot, s.slot);
    s.prefilled = std::ssize(s.request.prompt);
    s.leader = -1;
    count_hit(s.prefilled);
  }
  if (rows.empty()) return {};
  auto sequences = std::move(of_pieces);
  sequences.insert(sequences.end(), of_steps.begin(), of_steps.end());
  auto events = sample(sequences, rows);
  std::erase_if(running_, [&](const Sequence& s) {
    if (s.generated.empty() || end_of(s) == End::none) return false;
    caches_.drop(s.slot);
    return true;
  });
  return events;
}

/// Penalties, biases and bans of these sequences on their rows of the logits.
void Engine::adjust(std::span<const std::size_t> sequences, const Tensor& logits) {
  LogitEntries entries;
  for (std::size_t i = 0; i < sequences.size(); ++i)
    running_[sequences[i]].counts.append_entries(static_cast<std::int32_t>(i), entries);
  const auto all = static_cast<std::int64_t>(entries.size());
  for (std::int64_t begin = 0; begin < all; begin += most_entries) {
    const auto n = std::min(most_entries, all - begin);
    const auto upload = [&](const Tensor& to, const auto& values) {
      const auto part = to.slice(0, 0, n);
      ops_.upload(part, values.data() + begin);
      return part;
    };
    ops_.adjust_logits({.logits = logits,
                        .row = upload(entry_row_, entries.row),
                        .token = upload(entry_token_, entries.token),
                        .factor = upload(entry_factor_, entries.factor),
                        .addend = upload(entry_addend_, entries.addend)});
  }
}

/// Draws a token for each of these sequences, whose logits are those of the pass's rows. Where log-probabilities are asked for
/// and penalties change logits, a few rows at a time, of which the logits before are kept.
std::vector<Event> Engine::sample(const std::vector<std::size_t>& sequences,
                                  std::span<const std::int64_t> rows) {
  const auto n = std::ssize(sequences);
  std::vector<float> rules(static_cast<std::size_t>(5 * n));
  bool scored = false, changed = false;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto& s = running_[sequences[static_cast<std::size_t>(i)]];
    const auto row = sampling_row(s.request.sampling);
    const auto uniform = uniform_number(s.request.sampling.seed, std::ssize(s.generated), s.request.choice);
    const auto put = [&](std::int64_t kind, float value) {
      rules[static_cast<std::size_t>(kind * n + i)] = value;
    };
    put(0, row.temperature), put(1, row.top_p), put(2, row.min_p), put(3, uniform);
    put(4, std::bit_cast<float>(row.top_k));
    scored = scored || s.request.log_probabilities.has_value();
    changed = changed || !s.counts.empty();
  }
  ops_.upload(rules_.slice(0, 0, 5 * n), rules.data());
  const auto all_logits = pass_.logits(rows);
  const auto together = scored && changed ? unchanged_.size(0) : n;
  std::vector<Event> events(sequences.size());
  for (std::int64_t begin = 0; begin < n; begin += together) {
    const auto end = std::min(n, begin + together), count = end - begin;
    const auto part =
        std::span(sequences).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
    const auto events_of_part = std::span(events).subspan(static_cast<std::size_t>(begin), part.size());
    const auto rule = [&](std::int64_t kind) { return rules_.slice(0, kind * n + begin, kind * n + end); };
    const auto logits = all_logits.slice(0, begin, end);
    auto own = logits;
    if (scored && changed) {
      own = unchanged_.slice(0, 0, count);
      ops_.copy(own, logits);
    }
    adjust(part, logits);
    const auto sampled = sampled_.slice(0, begin, end);
    ops_.sample_tokens({.tokens = sampled,
                        .logits = logits,
                        .temperature = rule(0),
                        .top_k = Tensor(rule(4).raw(), DType::i32, {count}, ops_.device()),
                        .top_p = rule(1),
                        .min_p = rule(2),
                        .uniform = rule(3)});
    if (scored) score(part, own, sampled, events_of_part);
  }
  std::vector<std::int32_t> tokens(sequences.size());
  ops_.download(tokens.data(), sampled_.slice(0, 0, n));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    auto& s = running_[sequences[i]];
    s.generated.push_back(tokens[i]);
    if (tokens[i] >= 0) s.counts.add(tokens[i]);
    events[i].request = s.number, events[i].token = tokens[i], events[i].end = end_of(s);
  }
  return events;
}

/// Log-probabilities of the drawn tokens by the model's own logits.
void Engine::score(std::span<const std::size_t> sequences, const Tensor& logits, const Tensor& labels,
                   std::span<Event> events) {
  const auto n = std::ssize(sequences);
  std::int64_t tops = 0;
  for (const auto i : sequences) tops = std::max(tops, running_[i].request.log_probabilities.value_or(0));
  tops = std::min(tops, weights_.config().vocab_size);
  const auto of_tops = [&](const Tensor& x) {
    return tops == 0 ? Tensor() : x.slice(0, 0, n * tops).view({n, tops});
  };
  const auto chosen = log_probability_.slice(0, 0, n);
  ops_.score_tokens({.log_probability = chosen,
                     .top_tokens = of_tops(top_tokens_),
                     .top_log_probability = of_tops(top_log_probability_),
                     .logits = logits,
                     .labels = labels});
  std::vector<float> log_probability(sequences.size()), top_values(static_cast<std::size_t>(n * tops));
  std::vector<std::int32_t> top_tokens(top_values.size());
  ops_.download(log_probability.data(), chosen);
  if (tops > 0) {
    ops_.download(top_tokens.data(), of_tops(top_tokens_));
    ops_.download(top_values.data(), of_tops(top_log_probability_));
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto wanted = running_[sequences[i]].request.log_probabilities;
    if (!wanted) continue;
    events[i].log_probability = log_probability[i];
    for (std::int64_t j = 0; j < std::min(*wanted, tops); ++j) {
      const auto at = i * static_cast<std::size_t>(tops) + static_cast<std::size_t>(j);
      events[i].top.push_back({top_tokens[at], top_values[at]});
    }
  }
}

}  // namespace ratplus::infer
