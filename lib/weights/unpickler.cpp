#include "lib/weights/unpickler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "base/error.h"

namespace ratplus::weights {

using Ref = Pickled::Ref;
using Kind = Pickled::Kind;
using Object = Pickled::Object;

namespace {

/// All that a pickle may name. Types are kept as their names; the others are what REDUCE below understands.
constexpr std::array known_names = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type_v2",
    "torch.nn.parameter.Parameter",
    "torch.Tensor",
    "torch.Size",
    "torch.device",
    "_codecs.encode",
    "builtins.set",
    "builtins.frozenset",
    "__builtin__.set",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    "builtins.float",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.ComplexFloatStorage",
    "torch.ComplexDoubleStorage",
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
    "torch.float32",
    "torch.float64",
    "torch.float16",
    "torch.bfloat16",
    "torch.int64",
    "torch.int32",
    "torch.int16",
    "torch.int8",
    "torch.uint8",
    "torch.uint16",
    "torch.uint32",
    "torch.uint64",
    "torch.bool",
    "torch.float8_e4m3fn",
    "torch.float8_e5m2",
};

}  // namespace

/// The pickle machine (pickletools.py documents its opcodes), for the opcodes of protocols 2 to 5 that data needs.
class Unpickler {
 public:
  Unpickler(std::string_view pickle, std::string_view name) : bytes_(pickle), name_(name) {}

  Pickled run() {
    while (step()) {
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void damaged(std::string_view what) const {
    fail("{}: damaged at byte {} ({}); copy the file again", name_, at_, what);
  }

  [[noreturn]] void refuse(std::string_view what) const {
    fail(
        "{}: byte {} {}, and a checkpoint may hold nothing but tensors, dictionaries and plain values; load "
        "it "
        "where you trust it, and save its state dict alone (torch.save(model.state_dict(), FILE))",
        name_, at_, what);
  }

  // --- bytes ---------------------------------------------------------------------------------------------------
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_) damaged("it ends in the middle of a value");
    const auto taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }
  template <typename T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view line() {
    const auto end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) damaged("a name without an end");
    const auto taken = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return taken;
  }

  // --- objects -------------------------------------------------------------------------------------------------
  Object& object(Ref ref) { return result_.objects_[ref]; }
  void push(Object made) {
    if (result_.objects_.size() >= std::numeric_limits<Ref>::max()) damaged("too many values");
    stack_.push_back(static_cast<Ref>(result_.objects_.size()));
    result_.objects_.push_back(std::move(made));
  }
  void push_number(Kind kind, std::int64_t value) { push({.kind = kind, .number = value}); }
  void push_text(std::string_view text) { push({.kind = Kind::text, .text = text}); }

  /// Where the values above the last mark begin; below it nothing may be taken.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Ref pop() {
    if (stack_.size() <= floor()) damaged("a value is missing");
    const Ref ref = stack_.back();
    stack_.pop_back();
    return ref;
  }
  Ref top() const {
    if (stack_.size() <= floor()) damaged("a value is missing");
    return stack_.back();
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) damaged("a mark is missing");
    std::vector<Ref> taken(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return taken;
  }
  std::vector<Ref> pop_some(std::size_t count) {
    std::vector<Ref> taken(count);
    for (std::size_t i = count; i-- > 0;) taken[i] = pop();
    return taken;
  }

  void add_items(const std::vector<Ref>& added, Kind wanted) {
    Object& target = object(top());
    if (target.kind != wanted) damaged("values are added to what cannot hold them");
    if (wanted == Kind::dictionary && added.size() % 2 != 0) damaged("a key without a value");
    target.items.insert(target.items.end(), added.begin(), added.end());
  }

  // --- the memo ------------------------------------------------------------------------------------------------
  void remember(std::uint32_t index) { memo_[index] = top(); }
  void recall(std::uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) damaged("a reference to what was not there");
    stack_.push_back(found->second);
  }

  // --- names and what is made of them --------------------------------------------------------------------------
  void push_name(std::string_view module, std::string_view name) {
    std::string full = std::string(module) + "." + std::string(name);
    if (std::find(known_names.begin(), known_names.end(), full) == known_names.end())
      refuse(fmt::format("names {}", printable(full)));
    result_.names_.push_back(std::move(full));
    push({.kind = Kind::name, .text = result_.names_.back()});
  }

  void persistent() {
    // ("storage", type, key, device, elements): the bytes are a record of their own.
    const Object& id = object(pop());
    const auto is = [&](std::size_t i, Kind kind) { return object(id.items[i]).kind == kind; };
    if (id.kind != Kind::tuple || id.items.size() < 5 || !is(0, Kind::text) || !is(1, Kind::name) ||
        !is(2, Kind::text) || !is(4, Kind::integer) || object(id.items[0]).text != "storage") {
      refuse("refers to something outside that is no tensor's storage");
    }
    push({.kind = Kind::storage,
          .number = object(id.items[4]).number,
          .text = object(id.items[2]).text,
          .items = {id.items[1]}});
  }

  void push_tensor(const std::vector<Ref>& args) {
    const auto is = [&](std::size_t i, Kind kind) { return object(args[i]).kind == kind; };
    if (args.size() < 4 || !is(0, Kind::storage) || !is(1, Kind::integer) || !is(2, Kind::tuple) ||
        !is(3, Kind::tuple)) {
      damaged("a tensor of wrong parts");
    }
    push({.kind = Kind::tensor, .number = object(args[1]).number, .items = {args[0], args[2], args[3]}});
  }

  void reduce() {
    const Ref arguments = pop();
    const Ref callable = pop();
    if (object(callable).kind != Kind::name) refuse("calls what is no name");
    // What is copied here must be short: the same tuple may be an argument of every call.
    if (object(arguments).kind != Kind::tuple || object(arguments).items.size() > most_arguments)
      damaged("a call with impossible arguments");
    make(object(callable).text, object(arguments).items);
  }

  /// What a known name makes of its arguments.
  void make(std::string_view name, std::vector<Ref> args) {
    const auto first = [&]() -> const Object& {
      if (args.empty()) damaged("a call without arguments");
      return object(args[0]);
    };
    if (name.starts_with("torch._utils._rebuild_tensor")) return push_tensor(args);
    if (name == "collections.OrderedDict" && args.empty()) return push({.kind = Kind::dictionary});
    if (name == "collections.defaultdict") return push({.kind = Kind::dictionary});
    if (name == "torch._tensor._rebuild_from_type_v2") {  // (function, type, arguments, attributes)
      if (args.size() < 3 || object(args[0]).kind != Kind::name || object(args[2]).kind != Kind::tuple ||
          !object(args[0]).text.starts_with("torch._utils._rebuild_tensor")) {
        refuse("makes a tensor of an unknown type");
      }
      if (object(args[2]).items.size() > most_arguments) damaged("a tensor of wrong parts");
      return push_tensor(std::vector<Ref>(object(args[2]).items));
    }
    if (name.starts_with("torch._utils._rebuild_parameter")) {  // (tensor, ...)
      if (first().kind != Kind::tensor) damaged("a parameter that is no tensor");
      return stack_.push_back(args[0]);
    }
    if (name == "torch.Size" || name == "torch.device" || name == "_codecs.encode" || name.ends_with("set")) {
      return first(), stack_.push_back(args[0]);
    }
    refuse(fmt::format("calls {}", printable(name)));
  }

  /// Attributes of a dictionary (a state dict's versions of its modules) or of a tensor: of no use here.
  void build() {
    pop();
    const Kind target = object(top()).kind;
    if (target != Kind::dictionary && target != Kind::tensor) refuse("sets attributes of an unknown object");
  }

  void long_integer(std::uint64_t count) {
    const auto digits = take(count);
    if (count > 8) return push({.kind = Kind::other});
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i)
      value |= std::uint64_t{static_cast<unsigned char>(digits[i])} << 8 * i;
    if (count > 0 && count < 8 && (digits.back() & 0x80) != 0) value |= ~std::uint64_t{0} << 8 * count;
    push_number(Kind::integer, static_cast<std::int64_t>(value));
  }

  void real() {  // big-endian
    std::uint64_t bits = 0;
    for (const char byte : take(8)) bits = bits << 8 | static_cast<unsigned char>(byte);
    push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
  }

  /// One opcode; false after the last.
  bool step() {
    const auto code = number<unsigned char>();
    return value_opcode(code) || collection_opcode(code) || object_opcode(code) || end(code);
  }

  bool value_opcode(unsigned char code) {
    switch (code) {
      case 'N':
        return push({}), true;
      case 0x88:
      case 0x89:
        return push_number(Kind::boolean, code == 0x88), true;
      case 'J':
        return push_number(Kind::integer, number<std::int32_t>()), true;
      case 'K':
        return push_number(Kind::integer, number<std::uint8_t>()), true;
      case 'M':
        return push_number(Kind::integer, number<std::uint16_t>()), true;
      case 0x8a:
        return long_integer(number<std::uint8_t>()), true;
      case 'G':
        return real(), true;
      case 'U':  // strings and bytes, by the size of their length
      case 'C':
      case 0x8c:
        return push_text(take(number<std::uint8_t>())), true;
      case 'T':
      case 'B':
      case 'X':
        return push_text(take(number<std::uint32_t>())), true;
      case 0x8d:
      case 0x8e:
        return push_text(take(number<std::uint64_t>())), true;
      default:
        return false;
    }
  }

  bool collection_opcode(unsigned char code) {
    switch (code) {
      case '(':
        return marks_.push_back(stack_.size()), true;
      case ')':
        return push({.kind = Kind::tuple}), true;
      case 0x85:
      case 0x86:
      case 0x87:
        return push({.kind = Kind::tuple, .items = pop_some(code - 0x84u)}), true;
      case 't':
        return push({.kind = Kind::tuple, .items = pop_to_mark()}), true;
      case ']':
      case 0x8f:  // a set
        return push({.kind = Kind::list}), true;
      case 'a':
        return add_items(pop_some(1), Kind::list), true;
      case 'e':
      case 0x90:
        return add_items(pop_to_mark(), Kind::list), true;
      case 0x91:  // a frozen set
        return push({.kind = Kind::list, .items = pop_to_mark()}), true;
      case '}':
        return push({.kind = Kind::dictionary}), true;
      case 's':
        return add_items(pop_some(2), Kind::dictionary), true;
      case 'u':
        return add_items(pop_to_mark(), Kind::dictionary), true;
      default:
        return false;
    }
  }

  bool object_opcode(unsigned char code) {
    switch (code) {
      case 0x80:
        if (number<std::uint8_t>() > 5) damaged("a newer protocol than 5");
        return true;
      case 0x95:  // a frame: its length is of no use
        return take(8), true;
      case 'q':
        return remember(number<std::uint8_t>()), true;
      case 'r':
        return remember(number<std::uint32_t>()), true;
      case 0x94:
        return remember(static_cast<std::uint32_t>(memo_.size())), true;
      case 'h':
        return recall(number<std::uint8_t>()), true;
      case 'j':
        return recall(number<std::uint32_t>()), true;
      case 'c': {
        const auto module = line();
        return push_name(module, line()), true;
      }
      case 0x93: {
        const Object& name = object(pop());
        const Object& module = object(pop());
        if (name.kind != Kind::text || module.kind != Kind::text) damaged("a name that is no text");
        return push_name(module.text, name.text), true;
      }
      case 'Q':
        return persistent(), true;
      case 'R':
        return reduce(), true;
      case 'b':
        return build(), true;
      default:
        return false;
    }
  }

  bool end(unsigned char code) {
    if (code != '.') {
      --at_;
      refuse(fmt::format("has the opcode {:#04x}", code));
    }
    result_.root_ = pop();
    return false;
  }

  static constexpr std::size_t most_arguments = 16;

  std::string_view bytes_;
  std::string_view name_;
  std::size_t at_ = 0;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;  ///< sizes of the stack
  std::unordered_map<std::uint32_t, Ref> memo_;
  Pickled result_;
};

const Object* Pickled::find(const Object& dictionary, std::string_view key) const {
  if (dictionary.kind != Kind::dictionary) return nullptr;
  for (std::size_t i = 0; i + 1 < dictionary.items.size(); i += 2) {
    const Object& each = (*this)[dictionary.items[i]];
    if (each.kind == Kind::text && each.text == key) return &(*this)[dictionary.items[i + 1]];
  }
  return nullptr;
}

Pickled unpickle(std::string_view pickle, std::string_view name) {
  return Unpickler(pickle, name).run();
}

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 120;
  std::string shown;
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return text.size() > longest ? shown + "..." : shown;
}

}  // namespace ratplus::weights
