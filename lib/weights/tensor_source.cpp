#include "lib/weights/tensor_source.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "base/units.h"
#include "lib/checkpoint/model_json.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"
#include "lib/weights/description.h"
#include "lib/weights/unpickler.h"

namespace ratplus::weights {
namespace {

constexpr std::int64_t piece = std::int64_t{1} << 20;  ///< elements compared at once

std::string layer_prefix(std::int64_t layer) {
  return fmt::format("backbone.layers.{}.", layer);
}

}  // namespace

TensorSource::TensorSource(std::unique_ptr<TensorFile> file, const model::ModelConfig& assumed)
    : file_(std::move(file)) {
  info_.directory = file_->path();
  for (std::size_t i = 0; i < file_->tensors().size(); ++i) {
    const auto& name = file_->tensors()[i].name;
    const auto [other, is_new] = tensors_.try_emplace(without_wrappers(name), i);
    if (is_new) continue;
    fail("{}: holds {} twice, as {} and as {}; keep one of them", file_->path().string(),
         printable(other->first), printable(file_->tensors()[other->second].name), printable(name));
  }
  if (file_->description().empty()) {
    info_.model = infer_model(assumed);
  } else {
    read_description(file_->description(), info_);
  }
  // A description may say anything: before that many layers are laid out, the last must be there.
  required(layer_prefix(info_.model.layers - 1) + "seq_layer.in_proj.weight");
  units_ = model::unit_layouts(info_.model);
  place_parameters();
  check_head();
}

const StoredTensor& TensorSource::required(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    fail("{}: has no {}; it is incomplete, or of another model than RAT+ (its tensors: {}, ...)",
         file_->path().string(), name,
         file_->tensors().empty() ? "none" : printable(file_->tensors().front().name));
  }
  return file_->tensors()[found->second];
}

/// Every size that the shapes tell; the others are `assumed`.
model::ModelConfig TensorSource::infer_model(model::ModelConfig assumed) const {
  const auto& embedding = required(embedding_name);
  const auto& projection = required(layer_prefix(0) + "seq_layer.in_proj.weight");
  if (embedding.shape.size() != 2 || projection.shape.size() != 2) {
    fail("{}: its embedding and projections are no matrices; this is another model than RAT+",
         file_->path().string());
  }
  assumed.vocab_size = embedding.shape[0];
  assumed.width = embedding.shape[1];
  assumed.layers = 1;
  while (tensors_.contains(layer_prefix(assumed.layers) + "seq_layer.in_proj.weight")) ++assumed.layers;
  if (assumed.head_dim < 1 || assumed.width % assumed.head_dim != 0) {
    fail(
        "{}: does not say how its width of {} is cut into heads, and heads of {} do not divide it; give "
        "--head-dim",
        file_->path().string(), assumed.width, assumed.head_dim);
  }
  std::vector<model::MixerConfig> mixers;
  for (std::int64_t layer = 0; layer < assumed.layers; ++layer) mixers.push_back(infer_mixer(assumed, layer));
  assumed.mixers = std::move(mixers);
  assumed.repeat_mixers();
  checkpoint::check_model(assumed, file_->path());
  return assumed;
}

/// The assumed mixer where the layer's tensors have its shapes, else the one that they tell. L, W and, of 3d rows without
/// a gate, the mixer itself are in no tensor.
model::MixerConfig TensorSource::infer_mixer(const model::ModelConfig& assumed, std::int64_t layer) const {
  const auto prefix = layer_prefix(layer) + "seq_layer.";
  const auto& shape = required(prefix + "in_proj.weight").shape;
  const auto rows = shape.empty() ? 0 : shape[0];
  const bool biased = tensors_.contains(prefix + "gate_bias");
  const auto& mixer = assumed.mixer(layer);
  const bool fits = model::with_mixer(mixer.kind, [&]<typename M>(std::type_identity<M>) {
    return model::has_gate_bias<typename M::Parameters> == biased &&
           M::wide_columns(model::LayerConfig{assumed, mixer}) == rows;
  });
  if (fits) return mixer;
  using model::MixerKind;
  const auto d = assumed.width;
  const auto ask = [&](const std::string& example) {
    fail(
        "{}: layer {} has {} rows in in_proj, {} gate_bias, which does not tell the mixer or its sizes; say "
        "which it is: "
        "`ratplus convert --mixer '{}'`, or model.mixer of a job",
        file_->path().string(), layer, rows, biased ? "and a" : "no", example);
  };
  if (biased && rows == 3 * d) return model::default_mixer(MixerKind::rnn);
  if (biased) {
    ask(fmt::format("{{ kind = \"rat\", chunk = L, groups = {} }}",
                    std::max<std::int64_t>((rows - 3 * d) / (2 * assumed.head_dim), 1)));
  }
  if (rows == 3 * d) ask("attention' or '{ kind = \"local_attention\", window = W }");
  return {rows / 5 == d ? MixerKind::ratplus : MixerKind::gated_attention};
}

void TensorSource::place_parameters() {
  std::unordered_set<std::string_view> known = {head_name};
  for (const auto& unit : units_) {
    auto& places = places_.emplace_back();
    for (const auto& slot : unit.slots) {
      const auto& tensor = required(slot.name);
      if (tensor.shape != slot.shape) {
        fail("{}: {} is [{}], and with its other tensors it should be [{}]", file_->path().string(),
             slot.name, fmt::join(tensor.shape, ", "), fmt::join(slot.shape, ", "));
      }
      if (!tensor.type) {
        fail("{}: {} is {}; weights may be float32, float16 or bfloat16", file_->path().string(), slot.name,
             tensor.type_name);
      }
      places.push_back(tensors_.at(slot.name));
      known.insert(slot.name);
    }
  }
  for (const auto& [name, tensor] : tensors_) {
    if (known.contains(name)) continue;
    fail("{}: has {}, which a RAT+ model of {} does not have; this is another model", file_->path().string(),
         printable(name), counted(info_.model.layers, "layer"));
  }
}

/// The head is the embedding: the same memory, or a copy of the same values.
void TensorSource::check_head() {
  const auto head = tensors_.find(head_name);
  if (head == tensors_.end()) return;
  const auto embedding = tensors_.at(embedding_name);
  if (file_->same_memory(head->second, embedding)) return;
  const auto& stored = file_->tensors()[head->second];
  const auto differ = [&] {
    fail("{}: its {} is not its embedding, and a RAT+ model has one weight for both", file_->path().string(),
         head_name);
  };
  if (stored.shape != file_->tensors()[embedding].shape || !stored.type) differ();
  std::vector<float> a(static_cast<std::size_t>(std::min(piece, stored.numel())));
  std::vector<float> b(a.size());
  for (std::int64_t begin = 0; begin < stored.numel(); begin += piece) {
    const auto count = static_cast<std::size_t>(std::min(piece, stored.numel() - begin));
    file_->read(head->second, begin, std::span(a).first(count));
    file_->read(embedding, begin, std::span(b).first(count));
    if (std::memcmp(a.data(), b.data(), count * sizeof(float)) != 0) differ();
  }
}

StoredType TensorSource::stored_type(std::size_t unit, std::size_t slot) const {
  return *file_->tensors()[places_[unit][slot]].type;
}

void TensorSource::read(std::size_t unit, parallel::UnitRange range, float* out) {
  std::fill_n(out, range.size(), 0.0f);
  const auto& slots = units_[unit].slots;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const auto begin = std::max(range.begin, slots[s].offset);
    const auto end = std::min(range.end, slots[s].offset + slots[s].numel);
    if (begin >= end) continue;
    file_->read(places_[unit][s], begin - slots[s].offset,
                std::span(out + (begin - range.begin), static_cast<std::size_t>(end - begin)));
  }
}

}  // namespace ratplus::weights
