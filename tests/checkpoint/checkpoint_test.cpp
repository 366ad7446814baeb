#include "lib/checkpoint/checkpoint.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <thread>

#include "base/files/pending_file.h"
#include "lib/checkpoint/background_save.h"
#include "lib/checkpoint/part.h"
#include "lib/checkpoint/pending_directory.h"
#include "lib/checkpoint/verify.h"
#include "lib/session/session.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/messages.h"
#include "tests/support/modes.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_file.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

const model::ModelConfig config{.layers = 2, .width = 32, .head_dim = 16, .vocab_size = 50};

const test::Mode on_cpu{"cpu", DeviceChoice::cpu, DType::f32, 0, 0};

std::unique_ptr<session::Session> new_session(const test::Mode& mode) {
  return std::make_unique<session::Session>(session::SessionSettings{.model = config,
                                                                     .shapes = {1, 16},
                                                                     .optimizer = {},
                                                                     .device = mode.device,
                                                                     .precision = mode.precision,
                                                                     .threads = 1},
                                            world());
}

std::vector<std::int32_t> some_tokens() {
  std::vector<std::int32_t> tokens(16);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(3 * i % 50);
  return tokens;
}

void train_once(session::Session& session) {
  const auto tokens = some_tokens();
  session.store().begin_update();
  session.store().begin_micro_batch(true);
  session.model().forward_backward(tokens, tokens, model::PatternPlan(), 0.1);
  session.model().take_loss();
  session.optimizer().update(1e-3, std::sqrt(session.optimizer().squared_norm()));
}

/// A session with weights, moments and an update count that are all different from a fresh one's.
std::unique_ptr<session::Session> trained_session(const test::Mode& mode = on_cpu) {
  auto session = new_session(mode);
  session->set_initial_weights(7);
  for (int update = 0; update < 3; ++update) train_once(*session);
  return session;
}

checkpoint::Info info_of(const fs::path& directory, std::int64_t step) {
  return {.directory = directory,
          .model = config,
          .step = step,
          .updates = 3,
          .tokens = 99,
          .job = "j",
          .tokenizer = "t"};
}

std::vector<float> state_of(session::Session& session) {
  std::vector<float> all;
  for (std::size_t u = 0; u < session.store().units().size(); ++u) {
    for (const Tensor& x : {session.store().master(u), session.optimizer().first_moment(u),
                            session.optimizer().second_moment(u)}) {
      std::vector<float> values(static_cast<std::size_t>(x.numel()));
      session.ops().download(values.data(), x);
      all.insert(all.end(), values.begin(), values.end());
    }
  }
  return all;
}

/// A checkpoint in a scratch directory, for damaging.
struct Saved {
  Saved() : session(trained_session()) {
    checkpoint::save(world(), info_of(run.path() / "checkpoints" / "step-00000005", 5), session->store(),
                     session->optimizer(), session->ops());
    directory = checkpoint::step_directory(run.path(), 5);
  }
  std::string load_message() {
    return message_of([&] {
      const auto info = checkpoint::read_info(checkpoint::resolve(directory));
      checkpoint::load_weights(info, session->store(), session->ops());
      checkpoint::load_optimizer(info, session->store(), session->optimizer(), session->ops());
    });
  }
  test::ScratchDirectory run;
  std::unique_ptr<session::Session> session;
  fs::path directory;
};

/// "VmRSS" or "VmHWM" (its highest value) of this process, in bytes.
std::int64_t memory(const std::string& which) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(which + ":")) return std::stoll(line.substr(which.size() + 1)) * 1024;
  }
  return 0;
}

/// How much more memory than before f had in use at its height.
std::int64_t growth_of(const std::function<void()>& f) {
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM = VmRSS
  const std::int64_t before = memory("VmRSS");
  f();
  return memory("VmHWM") - before;
}

/// What a manifest looks like from outside.
void make_step(const fs::path& directory) {
  fs::create_directories(directory);
  write_whole_file(directory / checkpoint::manifest_name, "{}");
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  REQUIRE(contains(text, what));
  return text.replace(text.find(what), what.size(), by);
}

data::Manifest dataset_of(std::int64_t train_tokens) {
  data::Manifest dataset;
  dataset.train = {{"a.h5", train_tokens, 3}};
  dataset.validation = {{"b.h5", 40, 2}};
  return dataset;
}

}  // namespace

TEST_CASE("weights, moments and counts come back bit for bit") {
  Saved saved;
  const auto before = state_of(*saved.session);
  const auto info = checkpoint::read_info(saved.directory);
  CHECK(info.step == 5);
  CHECK(info.updates == 3);
  CHECK(info.tokens == 99);
  CHECK(info.model == config);
  CHECK(info.tokenizer == "t");

  const auto fresh = new_session(on_cpu);
  fresh->set_initial_weights(8);
  CHECK(state_of(*fresh) != before);
  checkpoint::load_weights(info, fresh->store(), fresh->ops());
  checkpoint::load_optimizer(info, fresh->store(), fresh->optimizer(), fresh->ops());
  CHECK(state_of(*fresh) == before);
  CHECK(fresh->optimizer().updates() == 3);
}

TEST_CASE("a checkpoint saved on one device goes on there, and elsewhere, as if there had been none") {
  for (const auto& saved_on : test::modes()) {
    for (const auto& loaded_on : test::modes()) {
      CAPTURE(saved_on.name);
      CAPTURE(loaded_on.name);
      const test::ScratchDirectory run;
      const auto session = trained_session(saved_on);
      const auto info = info_of(checkpoint::step_directory(run.path(), 5), 5);
      checkpoint::save(world(), info, session->store(), session->optimizer(), session->ops());

      const auto fresh = new_session(loaded_on);
      fresh->set_initial_weights(8);
      const auto read = checkpoint::read_info(info.directory);
      checkpoint::load_weights(read, fresh->store(), fresh->ops());
      checkpoint::load_optimizer(read, fresh->store(), fresh->optimizer(), fresh->ops());
      fresh->store().publish_masters();
      CHECK(state_of(*fresh) == state_of(*session));
      CHECK(fresh->optimizer().updates() == session->optimizer().updates());

      // The next update, by the weights in the products' own type, is the same too.
      const auto before = state_of(*session);
      train_once(*session);
      train_once(*fresh);
      CHECK(state_of(*session) != before);
      if (saved_on.name == loaded_on.name) {
        CHECK(state_of(*fresh) == state_of(*session));
      } else {
        CHECK(test::relative_error(state_of(*fresh), state_of(*session)) <
              std::max(saved_on.tolerance, loaded_on.tolerance));
      }
    }
  }
}

TEST_CASE("the newest complete checkpoint is found, by its run too; partial ones are not") {
  Saved saved;
  const auto run = saved.run.path();
  checkpoint::save(world(), info_of(checkpoint::step_directory(run, 12), 12), saved.session->store(),
                   saved.session->optimizer(), saved.session->ops());
  fs::create_directories(run / "checkpoints" / "step-00000020.partial");
  fs::create_directories(run / "checkpoints" / "step-00000030");  // without a manifest
  CHECK(checkpoint::resolve(run) == checkpoint::step_directory(run, 12));
  CHECK(checkpoint::newest(run) == checkpoint::step_directory(run, 12));
  CHECK(!checkpoint::newest(run / "elsewhere"));

  checkpoint::prune(run, 1);
  CHECK(!fs::exists(checkpoint::step_directory(run, 5)));
  CHECK(fs::exists(checkpoint::step_directory(run, 12)));
  CHECK(!fs::exists(run / "checkpoints" / "step-00000020.partial"));
  CHECK(!fs::exists(run / "checkpoints" / "step-00000030"));
}

TEST_CASE("saving leaves nothing but the checkpoint, and replaces one of the same step") {
  Saved saved;
  checkpoint::save(world(), info_of(saved.directory, 5), saved.session->store(), saved.session->optimizer(),
                   saved.session->ops());
  int entries = 0;
  for (const auto& entry : fs::directory_iterator(saved.directory.parent_path())) {
    CHECK(entry.path() == saved.directory);
    ++entries;
  }
  CHECK(entries == 1);
  CHECK(saved.load_message().empty());
}

TEST_CASE("a damaged checkpoint is refused with the file's name") {
  Saved saved;
  const auto part = saved.directory / checkpoint::file_name(0);
  const auto manifest = saved.directory / checkpoint::manifest_name;
  const auto part_bytes = read_whole_file(part);
  const auto manifest_text = read_whole_file(manifest);

  SUBCASE("a part is missing") {
    fs::remove(part);
    CHECK(contains(saved.load_message(), part.string()));
  }
  SUBCASE("a part is cut short") {
    fs::resize_file(part, fs::file_size(part) / 2);
    CHECK(contains(saved.load_message(), part.string()));
  }
  SUBCASE("a byte of the weights is flipped") {
    auto bytes = part_bytes;
    bytes[bytes.size() * 3 / 4] = static_cast<char>(bytes[bytes.size() * 3 / 4] ^ 0x10);
    write_whole_file(part, bytes);
    CHECK(contains(saved.load_message(), part.string()));
  }
  SUBCASE("the manifest is cut short") {
    write_whole_file(manifest, manifest_text.substr(0, manifest_text.size() / 2));
    CHECK(contains(saved.load_message(), manifest.string()));
  }
  SUBCASE("the manifest has a NUL byte, at which a parser may end") {
    for (const auto& text : {manifest_text + std::string(1, '\0'), manifest_text + std::string("\0{}", 3),
                             manifest_text.substr(0, 40) + '\0' + manifest_text.substr(40)}) {
      write_whole_file(manifest, text);
      CHECK(contains(saved.load_message(), manifest.string() + ": damaged or not a checkpoint's manifest"));
    }
  }
  SUBCASE("a newer format") {
    write_whole_file(manifest, replaced(manifest_text, "\"version\": 2", "\"version\": 9"));
    CHECK(contains(saved.load_message(), "format version 9"));
    CHECK(contains(saved.load_message(), "newer ratplus"));
  }
  SUBCASE("a foreign format") {
    write_whole_file(manifest, replaced(manifest_text, "ratplus-checkpoint", "other-checkpoint"));
    CHECK(contains(saved.load_message(), "not a checkpoint's manifest"));
  }
  SUBCASE("a digit of the manifest is flipped") {
    write_whole_file(manifest, replaced(manifest_text, "\"step\": 5", "\"step\": 7"));
    CHECK(contains(saved.load_message(), "changed by hand"));
  }
  SUBCASE("a part is another checkpoint's") {
    fs::resize_file(part, fs::file_size(part) + 8);
    CHECK(contains(saved.load_message(), part.string()));
    CHECK(contains(saved.load_message(), "of another checkpoint"));
  }
  SUBCASE("more parts than there can be ranks") {
    for (const auto* parts : {"0", "2000000000", "4294967297"}) {
      write_whole_file(manifest, replaced(manifest_text, "\"parts\": 1", std::string("\"parts\": ") + parts));
      CHECK(contains(saved.load_message(), std::string("number of parts, ") + parts));
    }
  }
  SUBCASE("a model of impossible sizes") {
    write_whole_file(manifest, replaced(manifest_text, "\"width\": 32", "\"width\": -32"));
    CHECK(contains(saved.load_message(), "sizes are impossible"));
  }
  SUBCASE("nothing there") {
    fs::remove_all(saved.directory);
    CHECK(contains(saved.load_message(), "no such checkpoint"));
  }
  SUBCASE("a directory of something else") {
    fs::remove(manifest);
    CHECK(contains(saved.load_message(), "neither a checkpoint"));
  }
}

TEST_CASE("a directory is put in the place of none, of an empty one, of another, and of a file") {
  const test::ScratchDirectory scratch;
  const auto complete = scratch / "a.partial", final_name = scratch / "a";
  const auto make = [&](const char* text) {
    fs::create_directory(complete);
    write_whole_file(complete / "file", text);
  };
  const auto check_placed = [&](const char* text) {
    CHECK(read_whole_file(final_name / "file") == text);
    CHECK(std::distance(fs::directory_iterator(final_name), fs::directory_iterator()) == 1);
    CHECK(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()) == 1);
  };
  make("first");
  checkpoint::put_in_place(complete, final_name);
  check_placed("first");
  make("second");
  write_whole_file(final_name / "other", "of the first");
  checkpoint::put_in_place(complete.string() + "/", final_name.string() + "/");
  check_placed("second");
  fs::remove_all(final_name);
  fs::create_directory(final_name);
  make("third");
  checkpoint::put_in_place(complete, final_name);
  check_placed("third");
  fs::remove_all(final_name);
  write_whole_file(final_name, "a file");
  make("fourth");
  checkpoint::put_in_place(complete, final_name);
  check_placed("fourth");
  // Without anything to put there, what is there stays, and the message names it.
  CHECK(contains(message_of([&] { checkpoint::put_in_place(complete, final_name); }),
                 "cannot write " + final_name.string()));
  check_placed("fourth");
  CHECK(contains(message_of([&] { checkpoint::put_in_place(complete, scratch / "none/b"); }),
                 "cannot write " + (scratch / "none/b").string()));
}

TEST_CASE("a model as large as a job file may ask for is no damage") {
  Saved saved;
  auto info = checkpoint::read_info(saved.directory);
  info.model.vocab_size = 2147483647;
  checkpoint::write_manifest(saved.directory, info);
  CHECK(checkpoint::read_info(saved.directory).model.vocab_size == 2147483647);
}

TEST_CASE("version 1, without checksums, is still read") {
  Saved saved;
  const auto manifest = saved.directory / checkpoint::manifest_name;
  write_whole_file(manifest, replaced(read_whole_file(manifest), "\"version\": 2", "\"version\": 1"));
  CHECK(saved.load_message().empty());
  const auto info = checkpoint::read_info(saved.directory);
  CHECK(info.files.empty());
  CHECK(info.optimizer);
}

TEST_CASE("checkpoints are in the order of their steps, and what else is beside them is left alone") {
  const test::ScratchDirectory run;
  const auto checkpoints = run / "checkpoints";
  const auto last = checkpoint::step_directory(run.path(), 100'000'000);  // one digit more
  const auto before = checkpoint::step_directory(run.path(), 99'999'999);
  make_step(before);
  make_step(last);
  const std::vector<fs::path> others = {checkpoints / "best", checkpoints / "step-5-of-paper",
                                        checkpoints / "step-", checkpoints / "unsorted"};
  for (const auto& other : others) make_step(other);
  const std::vector<fs::path> notes = {checkpoints / "notes", checkpoints / "mine.partial"};
  for (const auto& note : notes) fs::create_directories(note);
  write_whole_file(checkpoints / "step-00000007", "a file");
  make_step(run / "archive");
  fs::create_directory_symlink(run / "archive", checkpoint::step_directory(run.path(), 3));

  CHECK(checkpoint::list(run.path()) ==
        std::vector<fs::path>{checkpoint::step_directory(run.path(), 3), before, last});
  CHECK(checkpoint::newest(run.path()) == last);
  checkpoint::prune(run.path(), 1);
  CHECK(checkpoint::list(run.path()) == std::vector<fs::path>{last});
  for (const auto& other : others) CHECK(fs::exists(other / checkpoint::manifest_name));
  for (const auto& note : notes) CHECK(fs::exists(note));
  CHECK(fs::exists(checkpoints / "step-00000007"));
  CHECK(fs::exists(run / "archive" / checkpoint::manifest_name));
}

TEST_CASE(
    "written in the background: the state as it was at the start, the same bytes as a save that waits") {
  Saved saved;
  const auto before = state_of(*saved.session);
  const auto directory = checkpoint::step_directory(saved.run.path() / "background", 5);
  int published = 0;
  checkpoint::BackgroundSave background(world());
  REQUIRE(background.prepare(saved.session->store(), Device{}));
  CHECK(!background.advance(false));
  background.start(info_of(directory, 5), saved.session->store(), saved.session->optimizer(),
                   saved.session->ops(), [&] { ++published; });
  CHECK(background.active());
  for (std::size_t u = 0; u < saved.session->store().units().size(); ++u)
    saved.session->ops().fill(saved.session->store().master(u), 3);  // training goes on
  CHECK(background.advance(true));
  CHECK(!background.active());
  CHECK(published == 1);
  const auto info = checkpoint::read_info(directory);
  checkpoint::verify(info);
  checkpoint::load_weights(info, saved.session->store(), saved.session->ops());
  CHECK(state_of(*saved.session) == before);
  const auto part = checkpoint::file_name(0);
  CHECK(read_whole_file(directory / part) == read_whole_file(saved.directory / part));

  // Between steps: each call does what can be done by then, and the last says so.
  background.start(info_of(checkpoint::step_directory(saved.run.path(), 9), 9), saved.session->store(),
                   saved.session->optimizer(), saved.session->ops(), {});
  int calls = 0;
  while (!background.advance(false) && ++calls < 5000)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(calls < 5000);
  CHECK(checkpoint::newest(saved.run.path()) == checkpoint::step_directory(saved.run.path(), 9));
}

TEST_CASE("a save in the background that fails or is abandoned leaves no checkpoint") {
  Saved saved;
  const auto directory = checkpoint::step_directory(saved.run.path(), 7);
  {
    checkpoint::BackgroundSave background(world());
    REQUIRE(background.prepare(saved.session->store(), Device{}));
    const auto start = [&] {
      background.start(info_of(directory, 7), saved.session->store(), saved.session->optimizer(),
                       saved.session->ops(), {});
    };
    {
      const test::FileSizeLimit limit(16384);
      start();
      const auto message = message_of([&] { background.advance(true); });
      CHECK(contains(message, (directory / checkpoint::file_name(0)).string()));
      CHECK(contains(message, "ulimit -f"));
    }
    CHECK(!fs::exists(checkpoint::PendingDirectory::partial_of(directory)));
    CHECK(!background.active());
    start();  // and is abandoned
  }
  CHECK(checkpoint::newest(saved.run.path()) == saved.directory);
}

TEST_CASE("the newest stay, and those of every so many steps") {
  const test::ScratchDirectory run;
  for (const int step : {10, 20, 30, 40, 45}) make_step(checkpoint::step_directory(run.path(), step));
  checkpoint::prune(run.path(), 2, 20);
  CHECK(checkpoint::list(run.path()) == std::vector<fs::path>{checkpoint::step_directory(run.path(), 20),
                                                              checkpoint::step_directory(run.path(), 40),
                                                              checkpoint::step_directory(run.path(), 45)});
}

TEST_CASE("a checkpoint whose manifest cannot be looked up is not taken for an interrupted one, and stays") {
  const test::ScratchDirectory run;
  for (const int step : {10, 20}) make_step(checkpoint::step_directory(run.path(), step));
  const auto unknown = checkpoint::step_directory(run.path(), 30),
             interrupted = checkpoint::step_directory(run.path(), 40);
  fs::create_directories(unknown);
  fs::create_symlink(checkpoint::manifest_name, unknown / checkpoint::manifest_name);  // ELOOP
  fs::create_directories(interrupted);
  checkpoint::prune(run.path(), 2);
  CHECK(fs::exists(unknown));
  CHECK(fs::exists(checkpoint::step_directory(run.path(), 20)));
  CHECK_FALSE(fs::exists(checkpoint::step_directory(run.path(), 10)));
  CHECK_FALSE(fs::exists(interrupted));
}

TEST_CASE("the newest whole checkpoint is found, and what is wrong with newer ones") {
  Saved saved;
  const auto run = saved.run.path();
  const auto save = [&](std::int64_t step) {
    checkpoint::save(world(), info_of(checkpoint::step_directory(run, step), step), saved.session->store(),
                     saved.session->optimizer(), saved.session->ops());
    return checkpoint::step_directory(run, step);
  };
  CHECK(checkpoint::newest_whole(run / "elsewhere", world()).damaged.empty());
  CHECK(checkpoint::newest_whole(run, world()).newest == saved.directory);

  const auto flipped = save(10);
  const auto part = flipped / checkpoint::file_name(0);
  const auto bytes = read_whole_file(part);
  const auto newer = save(20);
  const auto half_copied = save(30);
  const auto manifest = newer / checkpoint::manifest_name;
  write_whole_file(manifest, replaced(read_whole_file(manifest), "\"version\": 2", "\"version\": 4"));
  fs::remove(half_copied / checkpoint::file_name(0));
  // Every byte counts: of the data, of what HDF5 keeps between it, of both ends.
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{100}, bytes.size() / 3, bytes.size() / 2, bytes.size() - 1}) {
    CAPTURE(at);
    auto damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    write_whole_file(part, damaged);
    const auto found = checkpoint::newest_whole(run, world());
    CHECK(found.newest == saved.directory);
    REQUIRE(found.damaged.size() == 3);
    CHECK(contains(found.damaged[0].reason, (half_copied / checkpoint::file_name(0)).string() + ": missing"));
    CHECK(contains(found.damaged[1].reason, manifest.string() + ": checkpoint format version 4"));
    CHECK(contains(found.damaged[2].reason, part.string() + ": damaged"));
  }
  checkpoint::set_aside(half_copied);
  CHECK(!fs::exists(half_copied));
  CHECK(checkpoint::list(run).size() == 3);
  fs::remove_all(saved.directory);
  const auto message = message_of([&] { checkpoint::newest_whole(run, world()); });
  CHECK(contains(message, "none of its 2 checkpoints is whole"));
  CHECK(contains(message, manifest.string()));
}

TEST_CASE("a failed write names the file as it would have been called, and the way out") {
  Saved saved;
  const auto directory = checkpoint::step_directory(saved.run.path(), 6);
  const auto save = [&] {
    checkpoint::save(world(), info_of(directory, 6), saved.session->store(), saved.session->optimizer(),
                     saved.session->ops());
  };
  std::string message;
  SUBCASE("a part") {
    const test::FileSizeLimit limit(16384);
    message = message_of(save);
  }
  SUBCASE("the directory") {
    fs::remove_all(directory.parent_path());
    write_whole_file(directory.parent_path(), "in the way");
    message = message_of(save);
  }
  CHECK(contains(message, directory.string()));
  CHECK(!contains(message, ".partial"));
  CHECK(!fs::exists(directory));
}

TEST_CASE(
    "syncing: a directory that cannot be synced is none's fault, a file is, under the name that it gets") {
  CHECK(message_of([] { sync_path("/proc"); }).empty());  // EINVAL, as some network file systems say
  CHECK(contains(message_of([] { sync_path("/dev/null", "/final"); }), "cannot write /final: "));
  CHECK(contains(message_of([] { sync_path("/nowhere/a"); }), "make its directory first"));
}

TEST_CASE("a checkpoint knows the dataset that it was trained on") {
  Saved saved;
  auto info = info_of(saved.directory, 5);
  CHECK(!checkpoint::read_info(saved.directory).data);
  checkpoint::check_same_data(info, dataset_of(1000));  // not recorded
  info.data = checkpoint::counts_of(dataset_of(1000));
  checkpoint::save(world(), info, saved.session->store(), saved.session->optimizer(), saved.session->ops());
  const auto read = checkpoint::read_info(saved.directory);
  CHECK(read.data == info.data);
  CHECK(read.data->train_documents == 3);
  CHECK(read.data->validation_tokens == 40);
  checkpoint::check_same_data(read, dataset_of(1000));
  const auto message = message_of([&] { checkpoint::check_same_data(read, dataset_of(1001)); });
  CHECK(contains(message, saved.directory.string()));
  CHECK(contains(message, "1001 tokens"));
  CHECK(contains(message, "data.directory"));
  auto before = dataset_of(1000);
  CHECK_FALSE(checkpoint::check_same_data(read, before));  // the sizes alone
  for (auto* shards : {&before.train, &before.validation}) {
    for (auto& shard : *shards) shard.crc32 = 0x12345678;
  }
  info = read;
  info.data = checkpoint::counts_of(before);
  checkpoint::write_manifest(saved.directory, info);
  const auto known = checkpoint::parse_manifest(read_whole_file(saved.directory / checkpoint::manifest_name),
                                                saved.directory);
  CHECK(known.data == info.data);
  CHECK(checkpoint::check_same_data(known, before));
  CHECK_FALSE(checkpoint::check_same_data(known, dataset_of(1000)));
  before.train.front().crc32 = 0x12345679;
  CHECK(contains(message_of([&] { checkpoint::check_same_data(known, before); }), "in another order"));
}

TEST_CASE("a part of another checkpoint, as long as the right one, is refused where it is read") {
  Saved saved;
  CHECK(saved.load_message().empty());
  const auto part = saved.directory / "part-00000.h5";
  const auto refused = [&](checkpoint::Info other, const std::string& difference) {
    CAPTURE(difference);
    other.directory = saved.run.path() / "other" / difference;
    fs::create_directories(other.directory.parent_path());
    checkpoint::save(world(), other, saved.session->store(), saved.session->optimizer(),
                     saved.session->ops());
    const auto of_other = other.directory / "part-00000.h5";
    REQUIRE(fs::file_size(part) == fs::file_size(of_other));
    fs::copy_file(of_other, part, fs::copy_options::overwrite_existing);
    const auto message = saved.load_message();
    CHECK(contains(message, part.string() + ": has " + difference));
    CHECK(contains(message, "copy both from one"));
  };
  const auto right = info_of(saved.directory, 5);
  auto other = right;
  other.step = 6;
  refused(other, "step = 6, manifest.json beside it 5");
  other = right;
  other.updates = 5;
  refused(other, "updates = 5, manifest.json beside it 3");
  other = right;
  other.tokens = 100;
  refused(other, "tokens = 100, manifest.json beside it 99");

  const auto info = checkpoint::read_info(saved.directory);
  const auto& unit = saved.session->store().units().front();
  checkpoint::PartReader reader(info);
  float element = 0;
  for (int reading = 0; reading < 2; ++reading) {  // a reader that has refused it once refuses it again
    CHECK(contains(message_of([&] {
                     reader.read(checkpoint::Kind::weights, unit, {0, 1}, &element);
                   }),
                   part.string()));
  }
}

TEST_CASE("parts of one checkpoint that were exchanged, or copied over one another, are refused") {
  const test::ScratchDirectory scratch;
  parallel::UnitLayout unit;
  unit.name = "unit";
  unit.add("weight", {2, parallel::UnitLayout::alignment});
  checkpoint::Info info = info_of(scratch.path(), 5);
  info.parts = 2;
  info.optimizer = false;
  for (int part = 0; part < info.parts; ++part) {
    checkpoint::write_part(
        scratch.path(), info, part, {unit},
        [](checkpoint::Kind, std::size_t, parallel::UnitRange range, std::span<float> out) {
          std::ranges::fill(out, static_cast<float>(range.begin));
        });
    info.files.push_back(checkpoint::measure(scratch / checkpoint::file_name(part)));
  }
  checkpoint::write_manifest(scratch.path(), info);
  REQUIRE(info.files[0].bytes == info.files[1].bytes);
  std::vector<float> values(static_cast<std::size_t>(unit.numel));
  const auto message = [&] {
    return message_of([&] {
      checkpoint::PartReader(info).read(checkpoint::Kind::weights, unit, {0, unit.numel}, values.data());
    });
  };
  CHECK(message().empty());
  CHECK(values.back() == 64);
  const auto first = scratch / "part-00000.h5", second = scratch / "part-00001.h5", aside = scratch / "aside";
  fs::rename(first, aside);
  fs::copy_file(second, first);
  CHECK(contains(message(), first.string() + ": holds part 1 instead of 0"));
  fs::copy_file(aside, second, fs::copy_options::overwrite_existing);
  fs::copy_file(aside, first, fs::copy_options::overwrite_existing);
  CHECK(contains(message(), second.string() + ": holds part 0 instead of 1"));

  info.parts = 1;
  info.files.clear();
  CHECK(contains(message(), first.string() + ": has parts = 2, manifest.json beside it 1"));
}

TEST_CASE("a unit of many pieces comes back, by way of little memory") {
  constexpr std::int64_t mib = 1 << 20;
#ifdef __SANITIZE_ADDRESS__
  constexpr std::int64_t allowed = 400 * mib;  // what is freed stays in AddressSanitizer's quarantine
#else
  constexpr std::int64_t allowed = 36 * mib;
#endif
  const model::ModelConfig large{
      .layers = 1, .width = 64, .head_dim = 16, .vocab_size = 200'000};  // root: 49 MiB
  session::Session session({.model = large, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  session.set_initial_weights(7);
  const auto before = state_of(session);
  const test::ScratchDirectory run;
  auto info = info_of(checkpoint::step_directory(run.path(), 1), 1);
  info.model = large;
  CHECK(growth_of([&] {
          checkpoint::save(world(), info, session.store(), session.optimizer(), session.ops());
        }) < allowed);
  for (std::size_t u = 0; u < session.store().units().size(); ++u)
    session.ops().fill(session.store().master(u), 0);
  const auto read = checkpoint::read_info(info.directory);
  CHECK(growth_of([&] { checkpoint::load_weights(read, session.store(), session.ops()); }) < allowed);
  CHECK(std::ranges::equal(state_of(session), before));
}

TEST_CASE("a checkpoint of the middle of a step says which of its updates are done") {
  Saved saved;
  const auto whole = checkpoint::read_info(saved.directory);
  CHECK(whole.begun.empty());
  CHECK(contains(read_whole_file(saved.directory / checkpoint::manifest_name), "\"version\": 2"));
  auto info = whole;
  info.begun = {{.loss = 0.1, .gradient_norm = 1.0 / 3, .updated = true}};
  checkpoint::write_manifest(saved.directory, info);
  CHECK(checkpoint::read_info(saved.directory).begun == info.begun);
  CHECK(contains(read_whole_file(saved.directory / checkpoint::manifest_name), "\"version\": 3"));
  CHECK(saved.load_message().empty());
  info.begun = {{.loss = std::nan(""), .gradient_norm = std::nan(""), .updated = false}};
  checkpoint::write_manifest(saved.directory, info);  // JSON has no NaN, and the checksum is of the JSON
  const auto left_out = checkpoint::read_info(saved.directory).begun.at(0);
  CHECK(std::isnan(left_out.loss));
  CHECK(!left_out.updated);
}
