#include "dist/mpi/watch.h"

#include <algorithm>
#include <cmath>
#include <thread>

namespace switchyard::mpi {
namespace {

enum Tag { question = 1, answer, verdict };

// All messages are shorter, and so leave without their receiver, which may never take them.
constexpr std::size_t kLongest = 3000;

// Between looks at the control communicator; and the wait from which on a rank gives its core away between tests.
constexpr std::chrono::milliseconds kLook{10}, kBusy{1000};
constexpr std::chrono::microseconds kNap{200};

}  // namespace

Watch::Watch() {
  require(MPI_Comm_dup(MPI_COMM_WORLD, &control_), "MPI_Comm_dup");
  require(MPI_Comm_set_errhandler(control_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  require(MPI_Comm_rank(control_, &rank_), "MPI_Comm_rank");
  require(MPI_Comm_size(control_, &size_), "MPI_Comm_size");
}

// The communicator lives until MPI_Finalize: another rank may still ask, or an answer be on its way. So do the letters.
Watch::~Watch() {
  drop_sent();
  if (!letters_.empty()) static_cast<void>(new std::list<Letter>(std::move(letters_)));
}

Watch::Visit::Visit(Watch& watch, int group, const Call& call, std::vector<Tensor> kept)
    : watch_(watch), group_(group), number_(watch.journal_.enter(group, call)), kept_(std::move(kept)) {}

Watch::Visit::~Visit() {
  if (is_pending_)
    static_cast<void>(new std::vector<Tensor>(std::move(kept_)));
  else
    watch_.journal_.leave(group_, number_);
}

void Watch::wait(Visit& visit) {
  const Clock::time_point begin = Clock::now();
  Clock::time_point look = begin + kLook;
  while (true) {
    int is_done = 0;
    if (visit.code_ == MPI_SUCCESS) visit.code_ = MPI_Test(&visit.request_, &is_done, MPI_STATUS_IGNORE);
    if (visit.code_ != MPI_SUCCESS) [[unlikely]]
      investigate(visit, text(visit.name_, " failed on rank ", rank_, ": ", reason_of(visit.code_)));
    if (is_done) return;
    const Clock::time_point now = Clock::now();
    if (now < look) continue;
    serve();
    if (now - begin > timeout_ - patience()) {
      const double waited = std::round(10 * Seconds(now - begin).count()) / 10;
      investigate(visit, text("rank ", rank_, " waited ", waited, " s"));
      return;
    }
    if (now - begin > kBusy) std::this_thread::sleep_for(kNap);
    look = now + (now - begin > kBusy ? Clock::duration{} : kLook);
  }
}

// How long the ranks have to answer.
Watch::Seconds Watch::patience() const { return std::min(timeout_ / 4, Seconds(5)); }

void Watch::investigate(Visit& visit, const std::string& why) {
  const GroupName& name = journal_.name(visit.group_);
  Answers answers(static_cast<std::size_t>(size_));
  answers[static_cast<std::size_t>(rank_)] = journal_.account(name.path);
  tell_all(question, text(++questions_, ' ', name.path));

  // All may have answered, and the last of them be about to come; so the patience is not cut short.
  const Clock::time_point begin = Clock::now();
  while (Clock::now() - begin < patience()) {
    serve(&answers);
    int is_done = 0;
    if (visit.request_ != MPI_REQUEST_NULL) MPI_Test(&visit.request_, &is_done, MPI_STATUS_IGNORE);
    if (is_done) return;
    std::this_thread::sleep_for(kNap);
  }
  std::string what = text(diagnose(name, visit.number_, answers), "\n  (", why, ')');
  if (what.size() > kLongest) what = what.substr(0, kLongest) + "...";
  tell_all(verdict, what);
  throw Error(what, Fault::communication);
}

void Watch::serve(Answers* answers) {
  drop_sent();
  while (true) {
    int has_come = 0, length = 0;
    MPI_Status status;
    require(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, control_, &has_come, &status), "MPI_Iprobe");
    if (!has_come) return;
    MPI_Get_count(&status, MPI_BYTE, &length);
    std::string text(static_cast<std::size_t>(length), ' ');
    require(MPI_Recv(text.data(), length, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, control_, MPI_STATUS_IGNORE),
            "MPI_Recv");
    if (status.MPI_TAG == verdict) throw Error(text, Fault::communication);
    const std::string number = text.substr(0, text.find(' ')), rest = text.substr(number.size() + 1);
    if (status.MPI_TAG == question) {
      send(status.MPI_SOURCE, answer, number + ' ' + journal_.account(rest).write());
    } else if (answers && number == std::to_string(questions_)) {
      (*answers)[static_cast<std::size_t>(status.MPI_SOURCE)] = Account::read(rest);
    }
  }
}

void Watch::send(int rank, int tag, std::string text) {
  Letter& letter = letters_.emplace_back(Letter{std::move(text)});
  const int length = static_cast<int>(std::min(letter.text.size(), kLongest + 3));
  require(MPI_Isend(letter.text.data(), length, MPI_BYTE, rank, tag, control_, &letter.request), "MPI_Isend");
}

void Watch::tell_all(int tag, const std::string& text) {
  for (int rank = 0; rank < size_; ++rank)
    if (rank != rank_) send(rank, tag, text);
  // Letters leave as soon as the network takes them; those to a dead rank never do.
  const Clock::time_point begin = Clock::now();
  while (!letters_.empty() && Clock::now() - begin < patience() / 4) drop_sent();
}

void Watch::drop_sent() {
  std::erase_if(letters_, [](Letter& letter) {
    int is_done = 0;
    return MPI_Test(&letter.request, &is_done, MPI_STATUS_IGNORE) != MPI_SUCCESS || is_done;
  });
}

}  // namespace switchyard::mpi
