/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The layouts of the userfaultfd and PAGEMAP_SCAN interfaces, written out here so
 * that the headers of the build machine can't hide a feature of the running
 * kernel.  Python reads this file as its cdef: declarations only.
 */

struct uffdio_api {
	uint64_t api;
	uint64_t features;
	uint64_t ioctls;
};

struct uffdio_range {		/* UFFDIO_UNREGISTER, UFFDIO_WAKE */
	uint64_t start;
	uint64_t len;
};

struct uffdio_register {
	uint64_t start;
	uint64_t len;
	uint64_t mode;
	uint64_t ioctls;
};

struct uffdio_writeprotect {	/* UFFDIO_WRITEPROTECT and UFFDIO_RWPROTECT alike */
	uint64_t start;
	uint64_t len;
	uint64_t mode;
};

struct uffdio_copy {		/* UFFDIO_COPY and UFFDIO_MOVE alike */
	uint64_t dst;
	uint64_t src;
	uint64_t len;
	uint64_t mode;
	int64_t done;
};

struct uffdio_fill {		/* UFFDIO_ZEROPAGE, UFFDIO_CONTINUE, UFFDIO_POISON alike */
	uint64_t start;
	uint64_t len;
	uint64_t mode;
	int64_t done;
};

struct hmm_dmirror_cmd {	/* of the test driver for device memory */
	uint64_t addr;
	uint64_t ptr;
	uint64_t npages;
	uint64_t cpages;
	uint64_t faults;
};

struct uffdio_set_mode {
	uint64_t enable;
	uint64_t disable;
};

struct uffd_message {
	uint8_t event;
	uint8_t reserved[7];
	uint64_t argument[3];	/* page fault: flags, address, tid */
};

struct page_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

struct io_uring_ring_offsets {	/* of the submission and of the completion ring alike */
	uint32_t head;
	uint32_t tail;
	uint32_t ring_mask;
	uint32_t ring_entries;
	uint32_t flags_or_overflow;
	uint32_t dropped_or_cqes;
	uint32_t array_or_flags;
	uint32_t reserved;
	uint64_t user_address;
};

struct io_uring_setup_params {
	uint32_t sq_entries;
	uint32_t cq_entries;
	uint32_t flags;
	uint32_t sq_thread_cpu;
	uint32_t sq_thread_idle;
	uint32_t features;
	uint32_t wq_fd;
	uint32_t reserved[3];
	struct io_uring_ring_offsets sq;
	struct io_uring_ring_offsets cq;
};

struct io_uring_entry {		/* of the submission queue */
	uint8_t opcode;
	uint8_t flags;
	uint16_t priority;
	int32_t fd;
	uint64_t offset;
	uint64_t address;
	uint32_t len;
	uint32_t call_flags;
	uint64_t user_data;
	uint16_t buffer_index;
	uint16_t personality;
	uint32_t splice_fd;
	uint64_t more[2];
};

struct io_uring_completion {
	uint64_t user_data;
	int32_t result;
	uint32_t flags;
};
