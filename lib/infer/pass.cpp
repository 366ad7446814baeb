#include "lib/infer/pass.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "lib/model/linear.h"

namespace ratplus::infer {
namespace {

/// A buffer as rows [n, columns] without gaps, from its beginning.
Tensor narrowed(const Tensor& buffer, std::int64_t rows, std::int64_t columns) {
  return buffer.view({buffer.numel()}).slice(0, 0, rows * columns).view({rows, columns});
}

/// [n, heads P] as heads [n, heads, P].
Tensor heads_of(const Tensor& rows, std::int64_t head_dim) {
  return rows.view({rows.size(0), rows.size(1) / head_dim, head_dim});
}

/// [n, heads, P] as one sequence [1, n, heads, P].
Tensor as_sequence(const Tensor& rows, std::int64_t head_dim) {
  return rows.view({1, rows.size(0), rows.size(1) / head_dim, head_dim});
}

std::int64_t widest(const CacheShape& shape, const model::ModelConfig& config) {
  std::int64_t columns = config.width;
  for (const auto& layer : shape.layers) {
    for (const auto& part : {layer.form.o, layer.form.q, layer.form.k, layer.form.v, layer.form.f})
      columns = std::max(columns, part.end());
  }
  return columns;
}

std::int64_t most_key_heads(const CacheShape& shape) {
  std::int64_t heads = 1;
  for (const auto& layer : shape.layers) heads = std::max(heads, layer.key_heads);
  return heads;
}

/// Steps alone are recorded, for these numbers of sequences and tokens, so that a few recordings serve all: each takes some
/// memory of its own. Above, the GPU is slower than the host by far.
constexpr std::int64_t most_recorded = 256;

std::int64_t recorded_rows(std::int64_t rows) {
  const std::int64_t multiple = rows <= 8 ? 1 : rows <= 64 ? 8 : 32;
  return (rows + multiple - 1) / multiple * multiple;
}

/// Rows are moved to the front, for products of fewer rows, where they are at most one of this many.
constexpr std::int64_t few_of_all = 4;

std::int64_t recorded_tokens(std::int64_t tokens) {
  std::int64_t most = 1024;
  while (most < tokens) most *= 4;
  return most;
}

}  // namespace

Pass::Pass(const CacheShape& shape, const Settings& settings, const Weights& weights, Caches* caches,
           Ops& ops, Arena& arena)
    : shape_(shape), settings_(settings), weights_(weights), caches_(caches), ops_(ops) {
  const auto& config = weights.config();
  const auto compute = ops.compute_type();
  const auto rows = settings.rows, d = config.width, p = config.head_dim;
  const auto of_keys = most_key_heads(shape) * p;
  arena.category("activations");
  for (const auto& layer : shape.layers) {
    const auto chunk = std::max<std::int64_t>(layer.form.chunk, 1);
    if (!layer.form.attends() || std::ranges::find(ropes_, chunk, &Rope::chunk) != ropes_.end()) continue;
    ropes_.push_back({chunk, arena.allocate(DType::f32, {settings.tokens, 2, p / 2})});
  }
  inputs_ = arena.allocate(DType::i32, {rows + 2 * settings.steps});
  stream_ = arena.allocate(DType::f32, {rows, d});
  rstd_ = arena.allocate(DType::f32, {rows});
  for (Tensor* x : {&u_, &q_, &a_, &z_, &delta_}) *x = arena.allocate(compute, {rows, d});
  wide_ = arena.allocate(compute, {rows, widest(shape, config)});
  wide_activated_ = arena.allocate(compute, {rows, 4 * d});
  for (Tensor* x : {&k_, &v_}) *x = arena.allocate(compute, {settings.tokens, of_keys});
  lse_ = arena.allocate(DType::f32, {config.heads() * rows});
  if (ops.device().kind == DeviceKind::cuda) {
    std::int64_t partials = 0;
    for (const auto& layer : shape.layers) {
      for (const auto& group : layer.groups) {
        const auto keys = CacheShape::most_keys(CacheLayout(group.pattern), settings.tokens);
        partials = std::max(
            partials, operation::MixerStep::partial_floats(settings.steps, std::ssize(group.heads), p, keys));
      }
    }
    if (partials > 0) partials_ = arena.allocate(DType::f32, {partials});
    arrivals_ = arena.allocate(DType::i32, {settings.steps * config.heads()});
  }
  for (Tensor* x : {&state_in_, &state_out_}) *x = arena.allocate(DType::f32, {2 * of_keys});
  chosen_ = arena.allocate(compute, {settings.logits, d});
  logits_ = arena.allocate(DType::f32, {settings.logits, config.vocab_size});
}

OpShapes Pass::op_shapes(const model::ModelConfig& config, std::int64_t tokens) {
  return {1, tokens, config.heads(), config.head_dim, config.key_heads(), true, config.may_be_dense()};
}

void Pass::prepare() {
  for (const auto& rope : ropes_) {
    ops_.rope_table(rope.table, weights_.config().rope_base, rope.chunk, settings_.rope_scale);
  }
}

Tensor Pass::rope_of(const model::MixerForm& form) const {
  const auto found = std::ranges::find(ropes_, std::max<std::int64_t>(form.chunk, 1), &Rope::chunk);
  return found == ropes_.end() ? Tensor() : found->table;
}

/// Rows [begin, end) of one part of the projection, [n, heads, P] strided; empty where the mixer has none.
Tensor Pass::part(const model::ProjectionPart& part, std::int64_t layer, std::int64_t begin,
                  std::int64_t end) const {
  if (part.width == 0) return {};
  const auto columns = weights_.layer(layer).in_proj.size(0), p = shape_.head_dim;
  return heads_of(narrowed(wide_, settings_.rows, columns), p)
      .slice(0, begin, end)
      .slice(1, part.begin / p, part.end() / p);
}

/// Recurrence, rotation and attention of one piece into a_, and its keys and states into the caches.
void Pass::mix_piece(std::int64_t layer, const Piece& piece, std::int64_t row) {
  const auto& here = shape_.layers[static_cast<std::size_t>(layer)];
  const auto& form = here.form;
  const auto p = shape_.head_dim, d = weights_.config().width, key_heads = here.key_heads;
  const auto n = std::ssize(piece.tokens), first = piece.first, end = first + n;
  const auto sequence_of = [&](const model::ProjectionPart& of) {
    const auto x = part(of, layer, row, row + n);
    return x.empty() ? x : x.as_batch();
  };
  const bool kept = piece.slot >= 0;
  const auto a = as_sequence(attended(form).slice(0, row, row + n), p);
  const auto k_all = narrowed(k_, end, key_heads * p), v_all = narrowed(v_, end, key_heads * p);
  const auto state = [&](const Tensor& buffer) {
    return buffer.slice(0, 0, 2 * key_heads * p).view({1, 2, key_heads, p});
  };
  const bool goes_on = form.recurs() && first > 0;
  const auto slot_state = kept && form.recurs() ? caches_->states(layer).select(0, piece.slot) : Tensor();
  if (goes_on) ops_.copy(state_in_.slice(0, 0, 2 * key_heads * p).view({2, key_heads, p}), slot_state);
  operation::RecurrenceForward recurrence{
      .v_rec = form.attends() ? as_sequence(v_all.slice(0, first, end), p) : a,
      .state_out = kept && form.recurs() ? state(state_out_) : Tensor(),
      .v = sequence_of(form.v),
      .f = sequence_of(form.f),
      .gate_bias = weights_.layer(layer).gate_bias,
      .state_in = goes_on ? state(state_in_) : Tensor(),
      .first_position = first,
      .chunk = form.chunk};
  const auto q = form.attends() ? as_sequence(narrowed(q_, n, form.q.width), p) : Tensor();
  if (form.attends()) {
    if (first > 0) {
      // What the gathers leave out is read beside the windows, with weight zero.
      std::int64_t window = 0;
      for (const auto& group : here.groups) window = std::max(window, std::min(group.pattern.window, first));
      const auto begin = std::max<std::int64_t>(0, first - window - operation::AttentionForward::most_tile);
      for (const auto& keys : {k_all, v_all}) ops_.fill(keys.slice(0, begin, first), 0);
      for (std::size_t g = 0; g < here.groups.size(); ++g) {
        ops_.cache_gather({.k = heads_of(k_all, p),
                           .v = heads_of(v_all, p),
                           .cache = caches_->pages(layer, g),
                           .table = caches_->table(piece.slot, layer, g),
                           .first = first});
      }
    }
    recurrence.q = sequence_of(form.q), recurrence.q_rot = q;
    recurrence.k = sequence_of(form.k), recurrence.k_rot = as_sequence(k_all.slice(0, first, end), p);
    recurrence.rope = rope_of(form);
  }
  ops_.recurrence_rope_forward(recurrence);
  if (recurrence.state_out) {
    ops_.copy(slot_state, state_out_.slice(0, 0, 2 * key_heads * p).view({2, key_heads, p}));
  }
  if (!form.attends()) return;
  std::vector<Pattern> patterns;
  if (here.groups.size() == 1) {
    patterns = {here.groups.front().pattern};
  } else {
    patterns.resize(static_cast<std::size_t>(d / p));
    for (const auto& group : here.groups) {
      for (const auto head : group.heads) patterns[static_cast<std::size_t>(head)] = group.pattern;
    }
  }
  const auto skipped = unwanted_queries(layer, row, n);
  if (skipped < n) {
    ops_.attention_forward({.out = a.slice(1, skipped, n),
                            .lse = lse_.slice(0, 0, d / p * (n - skipped)).view({1, d / p, n - skipped}),
                            .q = q.slice(1, skipped, n),
                            .k = as_sequence(k_all, p),
                            .v = as_sequence(v_all, p),
                            .patterns = patterns,
                            .first_query = first + skipped,
                            .in_pieces = true});
  }
  for (std::size_t g = 0; kept && g < here.groups.size(); ++g) {
    ops_.cache_append({.cache = caches_->pages(layer, g),
                       .table = caches_->table(piece.slot, layer, g),
                       .k = heads_of(k_all, p).slice(0, first, end),
                       .v = heads_of(v_all, p).slice(0, first, end),
                       .first = first});
  }
}

/// Of a piece's n rows from `row` on, those before the first wanted one in the last layer, whose attention nobody reads. Elsewhere
/// 0, and on a GPU, where queries begin at a multiple of prompt_cut.
std::int64_t Pass::unwanted_queries(std::int64_t layer, std::int64_t row, std::int64_t n) const {
  if (!kept_ || layer + 1 < weights_.config().layers || ops_.device().kind != DeviceKind::cpu) return 0;
  const auto wanted = std::ranges::lower_bound(*kept_, row);
  return wanted == kept_->end() ? n : std::min(n, *wanted - row);
}

void Pass::mix_steps(std::int64_t layer, std::int64_t row, std::int64_t count, std::int64_t most_tokens,
                     bool at_rest) {
  const auto& here = shape_.layers[static_cast<std::size_t>(layer)];
  const auto& form = here.form;
  const auto of = [&](const model::ProjectionPart& x) { return part(x, layer, row, row + count); };
  operation::MixerStep step{.z = heads_of(z_.slice(0, row, row + count), shape_.head_dim),
                            .o = of(form.o),
                            .q = of(form.q),
                            .k = of(form.k),
                            .v = of(form.v),
                            .f = of(form.f),
                            .gate_bias = weights_.layer(layer).gate_bias,
                            .states = caches_->states(layer),
                            .slots = slots_,
                            .positions = positions_,
                            .rope = rope_of(form),
                            .chunk = form.chunk,
                            .at_rest = at_rest};
  if (!form.attends()) return ops_.mixer_step(step);
  for (std::size_t g = 0; g < here.groups.size(); ++g) {
    step.cache = caches_->pages(layer, g);
    step.tables = caches_->tables(layer, g);
    step.heads = caches_->heads(layer, g);
    step.first_heads = caches_->first_heads(layer, g);
    step.keeps_state = caches_->keeps_state(layer, g);
    step.most_keys = CacheShape::most_keys(step.cache.layout(), most_tokens);
    step.partials = partials_, step.arrivals = arrivals_;
    ops_.mixer_step(step);
  }
}

/// From the projection in wide_ to z_, what out_proj takes.
void Pass::mixer(std::int64_t layer, std::span<const Piece> pieces, std::int64_t steps,
                 std::int64_t most_tokens) {
  const auto& form = shape_.layers[static_cast<std::size_t>(layer)].form;
  std::int64_t row = 0;
  for (const auto& piece : pieces) {
    mix_piece(layer, piece, row);
    row += std::ssize(piece.tokens);
  }
  if (row > 0 && form.o.width > 0) {
    const auto columns = weights_.layer(layer).in_proj.size(0);
    const auto o = form.o.rows_of(narrowed(wide_, settings_.rows, columns)).slice(0, 0, row);
    ops_.output_gate_forward(z_.slice(0, 0, row), a_.slice(0, 0, row), o);
  }
  // A pass begins with the embedding's lookup; a piece writes to the caches within it.
  if (steps > 0) mix_steps(layer, row, steps, most_tokens, pieces.empty());
}

void Pass::run(std::span<const Piece> pieces, std::span<const Step> steps,
               std::optional<std::span<const std::int64_t>> wanted) {
  const auto& config = weights_.config();
  std::vector<std::int32_t> tokens, slots, positions;
  std::int64_t last_position = 0;
  for (const auto& piece : pieces) {
    const auto end = piece.first + std::ssize(piece.tokens);
    require(piece.first % prompt_cut == 0 && !piece.tokens.empty() && end <= settings_.tokens,
            "a piece of {} tokens from {} on", piece.tokens.size(), piece.first);
    require(piece.slot >= 0 ? piece.first == caches_->length(piece.slot) : piece.first == 0,
            "a piece that begins at {} of another sequence", piece.first);
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
  }
  for (const auto& step : steps) {
    tokens.push_back(step.token);
    slots.push_back(step.slot);
    positions.push_back(static_cast<std::int32_t>(caches_->length(step.slot)));
    last_position = std::max(last_position, caches_->length(step.slot));
  }
  for (const auto token : tokens) {
    require(token >= 0 && token < config.vocab_size, "token {} of a vocabulary of {}", token,
            config.vocab_size);
  }
  auto rows = std::ssize(tokens), step_rows = std::ssize(steps);
  require(rows > 0 && rows <= settings_.rows && step_rows <= settings_.steps,
          "a pass of {} rows and {} steps", rows, steps.size());
  kept_.reset();
  if (wanted && !pieces.empty()) {
    std::vector<std::int64_t> kept(wanted->begin(), wanted->end());
    std::ranges::sort(kept);
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    require(kept.empty() || (kept.front() >= 0 && kept.back() < rows), "rows {} to {} of {} are wanted",
            kept.empty() ? 0 : kept.front(), kept.empty() ? 0 : kept.back(), rows);
    if (few_of_all * std::ssize(kept) <= rows) kept_ = std::move(kept);
  }
  auto most_tokens = last_position + 1;
  Recording* recording = nullptr;
  if (pieces.empty() && ops_.device().kind == DeviceKind::cuda && rows <= most_recorded) {
    // Rows without a sequence fill up to a number that comes again.
    rows = step_rows = std::min({recorded_rows(rows), settings_.rows, settings_.steps});
    most_tokens = std::min(recorded_tokens(most_tokens), settings_.tokens);
    tokens.resize(static_cast<std::size_t>(rows), 0);
    slots.resize(static_cast<std::size_t>(rows), -1);
    positions.resize(static_cast<std::size_t>(rows), 0);
    auto& found = recordings_[{rows, most_tokens}];
    if (!found) found = ops_.make_recording();
    recording = found.get();
  }
  tokens.insert(tokens.end(), slots.begin(), slots.end());
  tokens.insert(tokens.end(), positions.begin(), positions.end());
  ops_.upload(inputs_.slice(0, 0, rows + 2 * step_rows), tokens.data());
  tokens_ = inputs_.slice(0, 0, rows);
  slots_ = inputs_.slice(0, rows, rows + step_rows);
  positions_ = inputs_.slice(0, rows + step_rows, rows + 2 * step_rows);
  if (recording) {
    recording->run([&] { compute({}, rows, step_rows, most_tokens); });
  } else {
    compute(pieces, rows, step_rows, most_tokens);
  }
  for (const auto& piece : pieces) {
    if (piece.slot >= 0) caches_->advance(piece.slot, std::ssize(piece.tokens));
  }
  for (const auto& step : steps) caches_->advance(step.slot, 1);
}

void Pass::compute(std::span<const Piece> pieces, std::int64_t rows, std::int64_t steps,
                   std::int64_t most_tokens) {
  const auto& config = weights_.config();
  const auto top = [&](const Tensor& x) { return x.slice(0, 0, rows); };
  const auto norm = [&](const Tensor& weight, const Tensor& delta) {
    ops_.residual_rms_norm_forward({.y = delta ? top(stream_) : Tensor(),
                                    .u = top(u_),
                                    .rstd = top(rstd_),
                                    .x = top(stream_),
                                    .delta = delta,
                                    .weight = weight,
                                    .eps = config.norm_eps});
  };
  ops_.embedding_forward(top(stream_), top(tokens_), weights_.embedding());
  const auto projections = [&](const Tensor& w) {
    return narrowed(wide_, settings_.rows, w.size(0)).slice(0, 0, rows);
  };
  const auto mix = [&](std::int64_t layer) {
    mixer(layer, pieces, steps, most_tokens);
    if (kept_ && layer + 1 == config.layers) {
      rows = std::ssize(*kept_);
      if (rows == 0) return;
      for (const auto& x : {stream_, z_}) move_kept(x);
    }
  };
  if (ops_.fuses_norm(rows, config.width)) {
    // Of few rows the products take the norms and residuals, from one mixer to the next: the same bits in fewer steps.
    const auto in_proj = [&](std::int64_t layer) {
      const auto& w = weights_.layer(layer);
      return model::linear::of_norm(projections(w.in_proj), top(stream_), w.input_norm, config.norm_eps,
                                    w.in_proj);
    };
    ops_.row_product(in_proj(0));
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      const auto& w = weights_.layer(layer);
      mix(layer);
      if (rows == 0) return;
      operation::ProductChain chain{
          {model::linear::onto(top(stream_), top(delta_), top(z_), w.out_proj),
           model::linear::of_norm(top(wide_activated_), top(stream_), w.ln, config.norm_eps, w.fc1, true),
           model::linear::onto(top(stream_), top(delta_), top(wide_activated_), w.fc2)}};
      if (layer + 1 < config.layers) chain.products.push_back(in_proj(layer + 1));
      ops_.product_chain(chain);
    }
    return norm(weights_.final_norm(), {});
  }
  Tensor delta;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const auto& w = weights_.layer(layer);
    norm(w.input_norm, delta);
    model::linear::rows_alone(ops_, projections(w.in_proj), top(u_), w.in_proj);
    mix(layer);
    if (rows == 0) return;
    model::linear::rows_alone(ops_, top(delta_), top(z_), w.out_proj);
    delta = top(delta_);
    norm(w.ln, delta);
    model::linear::rows_alone_gelu(ops_, top(wide_activated_), top(u_), w.fc1);
    delta = top(delta_);
    model::linear::rows_alone(ops_, delta, top(wide_activated_), w.fc2);
  }
  norm(weights_.final_norm(), delta);
}

void Pass::move_kept(const Tensor& x) {
  const auto& kept = *kept_;
  const auto n = std::ssize(kept);
  const auto row = [&](std::int64_t i) { return kept[static_cast<std::size_t>(i)]; };
  for (std::int64_t begin = 0, end = 0; begin < n; begin = end) {
    // Rows that lie together, in pieces that do not reach into their new place.
    while (end < n && row(end) - row(begin) == end - begin) ++end;
    const auto distance = row(begin) - begin;
    for (std::int64_t i = begin; distance > 0 && i < end; i += distance) {
      const auto count = std::min(distance, end - i);
      ops_.copy(x.slice(0, i, i + count), x.slice(0, row(i), row(i) + count));
    }
  }
}

Tensor Pass::logits(std::span<const std::int64_t> wanted) {
  const auto n = std::ssize(wanted);
  require(n > 0 && n <= settings_.logits, "logits of {} rows", n);
  std::vector<std::int64_t> rows(wanted.begin(), wanted.end());
  for (auto& row : rows) {
    if (!kept_) break;
    const auto found = std::ranges::lower_bound(*kept_, row);
    require(found != kept_->end() && *found == row, "logits of row {}, which was not wanted", row);
    row = found - kept_->begin();
  }
  Tensor h = u_.slice(0, rows[0], std::min(rows[0] + n, settings_.rows));
  const bool together = rows.back() - rows.front() == n - 1 &&
                        std::ranges::adjacent_find(rows, std::greater_equal()) == rows.end();
  if (!together) {
    h = chosen_.slice(0, 0, n);
    for (std::int64_t i = 0; i < n; ++i)
      ops_.copy(h.select(0, i), u_.select(0, rows[static_cast<std::size_t>(i)]));
  }
  const auto result = logits_.slice(0, 0, n);
  model::linear::rows_alone(ops_, result, h, weights_.head());
  return result;
}

}  // namespace ratplus::infer
