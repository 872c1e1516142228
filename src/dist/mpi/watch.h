#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <vector>

#include "dist/journal.h"
#include "dist/mpi/session.h"

namespace switchyard::mpi {

// Looks after the waits of this rank in all its groups. A rank that waits tests its request again and again, and from
// time to time answers those who ask where it is. One that has waited almost as long as it may asks every rank of the
// world; those that do not answer, or are in another collective, are named, and the Error (Fault::communication) that
// says so reaches every rank that waits. Nothing here needs a thread, and a rank that waits briefly pays a reading of
// the clock.
class Watch {
 public:
  // Every rank of MPI_COMM_WORLD makes one.
  Watch();
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void set_timeout(double seconds) { timeout_ = Seconds(seconds); }
  // Of the groups that this rank has joined.
  Journal& journal() { return journal_; }

  // One collective of this rank, from its begin to its end. Others may begin before it ends.
  class Visit {
   public:
    // `kept`: the memory that MPI works on. Where an Error ends the visit in the middle, it is never given back.
    Visit(Watch& watch, int group, const Call& call, std::vector<Tensor> kept);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

    // call(MPI_Request*) begins a non-blocking call of MPI, of this name.
    template <class Begin>
    void start(const char* name, const Begin& call) {
      is_pending_ = true;
      name_ = name;
      code_ = call(&request_);
    }
    // Returns when it is done.
    void finish() {
      watch_.wait(*this);
      is_pending_ = false;
    }
    template <class Begin>
    void run(const char* name, const Begin& call) {
      start(name, call);
      finish();
    }

   private:
    friend class Watch;
    Watch& watch_;
    const int group_;
    const std::int64_t number_;  // in the group
    std::vector<Tensor> kept_;
    const char* name_ = "";
    MPI_Request request_ = MPI_REQUEST_NULL;
    int code_ = MPI_SUCCESS;
    bool is_pending_ = false;
  };

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  // A message on its way, with the memory it lies in.
  struct Letter {
    std::string text;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  using Answers = std::vector<std::optional<Account>>;  // to this rank's present question, by rank

  void wait(Visit& visit);
  // Returns where the visit is done after all; otherwise throws. `why` is how the message ends.
  void investigate(Visit& visit, const std::string& why);
  Seconds patience() const;
  // Takes what has come on the control communicator; throws where it is a verdict.
  void serve(Answers* answers = nullptr);
  void send(int rank, int tag, std::string text);
  void tell_all(int tag, const std::string& text);
  void drop_sent();

  MPI_Comm control_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 0;
  Seconds timeout_{600};
  Journal journal_;
  std::int64_t questions_ = 0;  // asked so far; an answer repeats the number of its question
  std::list<Letter> letters_;
};

}  // namespace switchyard::mpi
