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

struct uffdio_writeprotect {
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
