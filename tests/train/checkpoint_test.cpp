#include "lib/checkpoint/checkpoint.h"

#include <doctest/doctest.h>

#include <fstream>
#include <functional>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/train/session.h"
#include "tests/parallel/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

const model::ModelConfig config{.layers = 2, .width = 32, .head_dim = 16, .vocab_size = 50};

/// A session with weights, moments and an update count that are all different from a fresh one's.
std::unique_ptr<train::Session> trained_session() {
  auto session = std::make_unique<train::Session>(
      train::SessionSettings{.model = config, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  session->set_initial_weights(7);
  std::vector<std::int32_t> inputs(16);
  for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = static_cast<std::int32_t>(3 * i % 50);
  for (int update = 0; update < 3; ++update) {
    session->store().begin_update();
    session->store().begin_micro_batch(true);
    session->model().forward_backward(inputs, inputs, model::PatternPlan(), 0.1);
    session->optimizer().update(1e-3);
  }
  return session;
}

checkpoint::Info info_of(const fs::path& directory, std::int64_t step) {
  return {.directory = directory, .model = config, .step = step, .updates = 3, .tokens = 99, .job = "j",
          .tokenizer = "t"};
}

std::vector<float> state_of(train::Session& session) {
  std::vector<float> all;
  for (std::size_t u = 0; u < session.store().units().size(); ++u) {
    for (const Tensor& x : {session.store().master(u), session.optimizer().first_moment(u),
                            session.optimizer().second_moment(u)}) {
      all.insert(all.end(), x.as<float>(), x.as<float>() + x.numel());
    }
  }
  return all;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
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
  std::unique_ptr<train::Session> session;
  fs::path directory;
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

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

  train::Session fresh({.model = config, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  fresh.set_initial_weights(8);
  CHECK(state_of(fresh) != before);
  checkpoint::load_weights(info, fresh.store(), fresh.ops());
  checkpoint::load_optimizer(info, fresh.store(), fresh.optimizer(), fresh.ops());
  CHECK(state_of(fresh) == before);
  CHECK(fresh.optimizer().updates() == 3);
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
  const auto manifest = saved.directory / "manifest.json";
  const auto part_bytes = data::read_whole_file(part);
  const auto manifest_text = data::read_whole_file(manifest);

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
    data::write_whole_file(part, bytes);
    CHECK(contains(saved.load_message(), part.string()));
  }
  SUBCASE("the manifest is cut short") {
    data::write_whole_file(manifest, manifest_text.substr(0, manifest_text.size() / 2));
    CHECK(contains(saved.load_message(), manifest.string()));
  }
  SUBCASE("a newer format") {
    auto text = manifest_text;
    const std::string version = "\"version\": 1";
    text.replace(text.find(version), version.size(), "\"version\": 9");
    data::write_whole_file(manifest, text);
    CHECK(contains(saved.load_message(), "format version 9"));
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
