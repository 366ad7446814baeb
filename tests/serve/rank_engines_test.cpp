// Several ranks behind one address.
#include "lib/serve/rank_engines.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "base/error.h"
#include "tests/serve/served.h"

using namespace ratplus;
using test::complete;
using test::soon;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

namespace {

Json random_body(int i) {
  return {{"prompt", Tokens(static_cast<std::size_t>(1 + i * 7 % 40), i % 300 + 3)},
          {"max_tokens", 3 + i * 5 % 30},
          {"temperature", 0.9},
          {"seed", i},
          {"ignore_eos", true},
          {"logprobs", 1},
          {"echo", i % 3 == 0},
          {"n", 1 + i % 2}};
}

}  // namespace

TEST_CASE("two and three ranks give the answers of one, and share the work") {
  const test::SmallModel model(400);
  test::Served one({.model = model, .ranks = 1});
  for (const int ranks : {2, 3}) {
    CAPTURE(ranks);
    test::Served served({.model = model, .slots = 4, .ranks = ranks});
    std::vector<std::thread> clients;
    std::vector<Json> answers(60);
    std::vector<std::int64_t> most(static_cast<std::size_t>(ranks));
    std::atomic<bool> done = false;
    std::thread watch([&] {
      while (!done) {
        const auto now = served.server().ranks()->outstanding();
        for (std::size_t r = 0; r < most.size(); ++r) most[r] = std::max(most[r], now[r]);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    for (int t = 0; t < 6; ++t) {
      clients.emplace_back([&, t] {
        for (std::size_t i = static_cast<std::size_t>(t); i < answers.size(); i += 6)
          answers[i] = complete(served.port(), random_body(static_cast<int>(i))).json();
      });
    }
    for (auto& client : clients) client.join();
    done = true;
    watch.join();
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto expected = complete(one.port(), random_body(static_cast<int>(i))).json();
      CHECK(answers[i]["choices"] == expected["choices"]);
    }
    CHECK(std::ranges::min(most) > 0);
    CHECK(served.becomes_idle());
    const auto left = served.server().ranks()->outstanding();
    CHECK(std::ranges::count(left, 0) == ranks);
  }
}

TEST_CASE("a rank that dies fails its requests with 500, and the server ends after the others") {
  test::Served::Settings settings{.model = test::SmallModel(4000), .slots = 2, .ranks = 2};
  std::string warning;
  settings.server.warn = [&](const std::string& line) { warning += line; };
  test::Served served(settings);
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0, failed = 0;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back([&] {
      const auto response =
          complete(served.port(), {{"prompt", Tokens(9, 5)}, {"max_tokens", 1500}, {"ignore_eos", true}});
      if (response.status == 200) ++answered;
      if (response.status == 500 && response.body.find("rank 1 of the server") != std::string::npos) ++failed;
    });
  }
  REQUIRE(soon([&] { return std::ranges::min(served.server().ranks()->outstanding()) > 0; }));
  served.lose_rank(1);
  for (auto& client : clients) client.join();
  served.join();
  CHECK(answered == 1);
  CHECK(failed == 1);
  CHECK_FALSE(served.complete());
  CHECK(warning == "rank 1 is gone; its requests failed, and the server ends");
}

TEST_CASE("new weights reach every rank, and clients that leave free all slots") {
  test::Served served({.model = test::SmallModel(2000), .ranks = 3});
  const Json body{{"prompt", Tokens(9, 5)}, {"max_tokens", 8}, {"temperature", 0}, {"ignore_eos", true}};
  const auto answers = [&] {
    std::set<std::string> texts;
    std::vector<std::thread> clients;
    std::mutex mutex;
    for (int i = 0; i < 9; ++i) {
      clients.emplace_back([&] {
        const auto text = complete(served.port(), body).json()["choices"][0]["text"].get<std::string>();
        const std::lock_guard lock(mutex);
        texts.insert(text);
      });
    }
    for (auto& client : clients) client.join();
    return texts;
  };
  const auto before = answers();
  CHECK(before.size() == 1);
  served.server().exchange_weights([&] {
    served.inference().set_initial(8);
    served.server().exchange_elsewhere("8");
  });
  std::set<std::string> after;
  CHECK(soon([&] {
    after = answers();
    return after.size() == 1 && after != before;
  }));
  {
    std::vector<std::unique_ptr<test::Client>> clients;
    for (int i = 0; i < 6; ++i) {
      auto longer = body;
      longer["max_tokens"] = 1900, longer["stream"] = true;
      clients.push_back(std::make_unique<test::Client>(served.port()));
      clients.back()->send(test::request_bytes("POST", "/v1/completions", longer.dump()));
      clients.back()->read_until("data: ");
    }
  }
  CHECK(served.becomes_idle());
}

TEST_CASE("links are for those alone who know the secret") {
  const serve::LinkPort port;
  std::thread stranger([&] {
    auto address = port.address();
    address.back() = address.back() == '0' ? '1' : '0';
    const auto link = serve::LinkPort::connect(address, 1);
    CHECK_FALSE(link->receive().has_value());
  });
  std::unique_ptr<serve::Link> end;
  std::thread rank([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    end = serve::LinkPort::connect(port.address(), 1);
  });
  const auto links = port.accept(1, 20);
  stranger.join();
  rank.join();
  CHECK(links.front()->send("hello"));
  CHECK(end->receive() == "hello");
  CHECK_THROWS_AS(port.accept(1, 0.05), Error);
}
