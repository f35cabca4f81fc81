;;; workbench-dap.el --- Recorded machines in Emacs, by dap-mode  -*- lexical-binding: t -*-

;; (load "…/workbench-dap") and then M-x dap-debug-edit-template RET Workbench, or
;;   (workbench-dap "boot.trace")
;; dap-mode has its own commands for what goes forwards; those backwards are here.

;;; Code:
(require 'dap-mode)
(require 'dap-ui)

(defvar workbench-dap-program "workbench" "The program that serves the protocol.")

(defun workbench-dap--populate (configuration)
  "Fill in of CONFIGURATION what is not said."
  (thread-first configuration
    (dap--put-if-absent :request "launch")
    (dap--put-if-absent :stopAt "end")
    (dap--put-if-absent :dap-server-path (list workbench-dap-program "dap"))))

(dap-register-debug-provider "workbench" #'workbench-dap--populate)
(dap-register-debug-template "Workbench" '(:type "workbench" :name "Workbench" :trace "boot.trace"))

(defun workbench-dap (trace)
  "Open TRACE at its end."
  (interactive "fTrace: ")
  (dap-debug (list :type "workbench" :name (file-name-nondirectory trace) :trace (expand-file-name trace))))

(defun workbench-dap--backwards (request)
  "Move the current thread by REQUEST."
  (let ((session (dap--cur-session-or-die)))
    (dap--send-message
     (dap--make-request request (list :threadId (dap--debug-session-thread-id session)))
     (dap--session-init-resp-handler session)
     session)))

(defun workbench-dap-step-back ()
  "Go back to the source line before."
  (interactive)
  (workbench-dap--backwards "stepBack"))

(defun workbench-dap-reverse-continue ()
  "Go back to the last breakpoint before here."
  (interactive)
  (workbench-dap--backwards "reverseContinue"))

(provide 'workbench-dap)
;;; workbench-dap.el ends here
